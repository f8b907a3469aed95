"""The relay on Lambda: by the clock, and at once by the stream of the table.

A schedule sweeps, which is enough. A stream in front of it sends a record within a second or so
of its commit; what the stream gives up on, or passes over, the sweep still finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from headrace.aws.client import open_ports, preload
from headrace.aws.config import AwsConfig
from headrace.errors import NoTable
from headrace.hosts.execution_environment import ExecutionEnvironment, LambdaContext, OpenPorts
from headrace.hosts.observing import observing
from headrace.hosts.settings import ObserveSettings, warn_of_misspelled
from headrace.observe.logs import configure
from headrace.observer import Observer
from headrace.pipeline import require_bus
from headrace.ports import Item
from headrace.relay import Relay, is_relayed
from headrace.service import Service

logger = logging.getLogger(__name__)

MARGIN: Final = timedelta(milliseconds=500)
"""Time kept free before the function's timeout for noting what was sent, and answering."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What became of one item; without an `image` it was removed."""

    sequence: str
    key: tuple[str, str]
    image: Item | None


class RelayHandler:
    """What Lambda calls. Make one with `relay_handler`."""

    def __init__(
        self,
        service: Service,
        *,
        observer: Observer | None = None,
        ports: OpenPorts = open_ports,
    ) -> None:
        if service.table is None:
            raise NoTable(
                f"The service {service.name!r} has no table, so there is nothing to relay: remove "
                "this function."
            )
        self._service = service
        telling = ObserveSettings.from_environment()
        if telling.logs == "json":
            configure(telling)
        warn_of_misspelled()
        self._told = observing(telling, observer)
        self._open_ports = ports
        self._environment = ExecutionEnvironment(self._open)

    def __call__(self, event: object, context: LambdaContext) -> dict[str, Any]:
        """Send what is left, as far as it can be done before the function's time is up.

        A batch of the table's stream is answered with `batchItemFailures`, which names the first
        record that is to come again: everything after it comes, too. Anything else is a sweep,
        answered with the number of records it sent; it raises `CloudError` if the index could
        not be read.
        """
        records = _stream_records(event)
        if records is None:
            return self._run(lambda relay: _sweep(relay, _time_left(context)))
        waiting = _waiting(records, self._service.name)
        if not waiting:
            # The usual batch: other items, and records that were sent by those who wrote them.
            return _answer([])
        return self._run(lambda relay: _send(relay, waiting, _time_left(context)))

    def close(self) -> None:
        """Flush and close everything; the next invocation starts afresh. For tests: Lambda
        itself never says goodbye."""
        self._environment.close()

    def _run(self, invoke: Callable[[Relay], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        try:
            return self._environment.run(invoke)
        finally:
            self._told.flush()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Relay]:
        async with self._open_ports(AwsConfig.from_environment()) as ports:
            await require_bus(self._service, ports, self._service.emits)
            relay = Relay(self._service, ports, self._told.observer)
            yield relay
            await relay.flush()


def relay_handler(service: Service, *, observer: Observer | None = None) -> RelayHandler:
    """The Lambda entry point of a service's relay: `handler = relay_handler(order)`.

    Invoke it on a schedule, every minute for instance. The stream of the table may invoke it too:
    with `StreamViewType: NEW_IMAGE`, and an event source mapping that sets
    `FunctionResponseTypes: [ReportBatchItemFailures]`. Raises `NoTable`.
    """
    handler = RelayHandler(service, observer=observer)
    preload()
    return handler


async def _sweep(relay: Relay, left: timedelta) -> dict[str, Any]:
    return {"sent": await relay.sweep(limit=left)}


async def _send(relay: Relay, waiting: Sequence[_Change], left: timedelta) -> dict[str, Any]:
    sends = [asyncio.create_task(relay.send_image(change.image or {})) for change in waiting]
    _, late = await asyncio.wait(sends, timeout=max(left.total_seconds(), 0))
    for send in late:
        send.cancel()
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    # The environment may be frozen from the answer on.
    await relay.flush()
    return _answer(
        [
            change
            for change, outcome in zip(waiting, outcomes, strict=True)
            if not _is_done(change, outcome)
        ]
    )


def _is_done(change: _Change, outcome: bool | BaseException) -> bool:
    if isinstance(outcome, asyncio.CancelledError):
        logger.warning("%s was not sent before the function's time was up.", change.key[0])
    elif isinstance(outcome, BaseException):
        logger.error("%s could not be sent.", change.key[0], exc_info=outcome)
    return outcome is True


def _answer(failed: Sequence[_Change]) -> dict[str, Any]:
    # One is enough: Lambda takes the lowest as its checkpoint, and sends everything from it again.
    lowest = sorted((change.sequence for change in failed), key=int)[:1]
    return {"batchItemFailures": [{"itemIdentifier": sequence} for sequence in lowest]}


def _time_left(context: LambdaContext) -> timedelta:
    return timedelta(milliseconds=context.get_remaining_time_in_millis()) - MARGIN


# --- what a stream sends -----------------------------------------------------------------


def _stream_records(event: object) -> Sequence[Mapping[str, Any]] | None:
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or any(
        not isinstance(r, Mapping) or r.get("eventSource") != "aws:dynamodb" for r in records
    ):
        return None
    return records


def _waiting(records: Sequence[Mapping[str, Any]], service: str) -> list[_Change]:
    """What may have to be sent: the last state of each item in the batch, if that is a record of
    this service which is not done. What is done has left the relay's index."""
    last = {change.key: change for change in _changes(records)}
    return [
        change
        for change in last.values()
        if change.image is not None and is_relayed(change.image, service)
    ]


def _changes(records: Sequence[Mapping[str, Any]]) -> list[_Change]:
    """The changes in a batch, without what is none. That is passed over, as it would be the same
    when it came again, and would hold up its shard until it expires a day later."""
    changes, errors = list[_Change](), list[Exception]()
    for record in records:
        try:
            changes.append(_change(record))
        except (KeyError, TypeError, ValueError) as error:
            errors.append(error)
    if errors:
        logger.error(
            "%d of %d records of the stream are passed over, as they are not what a stream with "
            "StreamViewType NEW_IMAGE sends (%r). A sweep sends what they stand for.",
            len(errors),
            len(records),
            errors[0],
        )
    return changes


def _change(record: Mapping[str, Any]) -> _Change:
    change = record["dynamodb"]
    sequence, keys = change["SequenceNumber"], change["Keys"]
    int(sequence)
    image = None if record["eventName"] == "REMOVE" else {**change["NewImage"], **keys}
    return _Change(sequence, (keys["pk"]["S"], keys["sk"]["S"]), image)
