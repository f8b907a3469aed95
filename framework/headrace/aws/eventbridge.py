"""The bus on EventBridge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from headrace.aws.config import AwsConfig, place
from headrace.aws.faults import retryable_entry, translated
from headrace.ports import BusEntry, EntryFailure

if TYPE_CHECKING:
    from types_aiobotocore_events.client import EventBridgeClient
    from types_aiobotocore_events.type_defs import PutEventsRequestEntryTypeDef


_SEEN_FOR: Final = 60.0
"""Seconds for which a bus that was there is taken to be there: who sends one event at a time would
ask as often as it sends."""


class EventBridgeBus:
    """`headrace.ports.Bus` on EventBridge's rules bus. One `put` is one `PutEvents`."""

    def __init__(self, client: EventBridgeClient, config: AwsConfig) -> None:
        self._client = client
        self._config = config
        self._place = place(client)
        self._seen: dict[str, float] = {}

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        name = self._config.physical_bus(bus)
        with translated("PutEvents", f"bus '{name}'", self._place):
            answer = await self._client.put_events(
                Entries=[_request_entry(entry, name) for entry in entries]
            )
        if not answer.get("FailedEntryCount"):
            return []
        # `Entries` is aligned with the request; an accepted one has an id and no code.
        return [
            EntryFailure(
                index=index,
                code=result["ErrorCode"],
                message=result.get("ErrorMessage", ""),
                # EventBridge names the two it wants again, and does not say whose fault it is.
                retryable=retryable_entry(result["ErrorCode"], sender_fault=True),
            )
            for index, result in enumerate(answer["Entries"])
            if "ErrorCode" in result
        ]

    async def require(self, bus: str) -> None:
        name = self._config.physical_bus(bus)
        now = asyncio.get_running_loop().time()
        if now - self._seen.get(name, -_SEEN_FOR) < _SEEN_FOR:
            return
        with translated("DescribeEventBus", f"bus '{name}'", self._place):
            await self._client.describe_event_bus(Name=name)
        self._seen[name] = now


def _request_entry(entry: BusEntry, bus: str) -> PutEventsRequestEntryTypeDef:
    request: PutEventsRequestEntryTypeDef = {
        "EventBusName": bus,
        "Source": entry.source,
        "DetailType": entry.detail_type,
        "Detail": entry.detail,
    }
    if entry.time is not None:
        request["Time"] = entry.time
    if entry.trace_header is not None:
        request["TraceHeader"] = entry.trace_header
    return request
