"""What services under test send, noted on its way to the bus and the queues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar
from uuid import uuid4

from pydantic_core import from_json, to_json

from headrace.events import Message, MessageType, contract_of, registry
from headrace.ports import BusEntry, EntryFailure, QueueEntry
from headrace.service import Service
from headrace.testing.memory import ManualClock, MemoryBus, MemoryCloud, MemoryQueues

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class _Sending:
    id: str
    name: str
    content: bytes


class Sendings:
    """Everything that goes out through `ports`, in the order in which it arrived."""

    def __init__(self, cloud: MemoryCloud[ManualClock], services: Iterable[Service]) -> None:
        self.ports = replace(
            cloud.ports,
            bus=_NotedBus(cloud.bus, self._note),
            queues=_NotedQueues(cloud.queues, self._note),
        )
        self._services = tuple(services)
        self._sendings: dict[str, _Sending] = {}

    def of(self, cls: type[MessageT]) -> list[MessageT]:
        """Everything of this type or one derived from it, as its consumers read it. What was sent
        again under its id is there once."""
        return list(self._read(cls))

    def _read(self, cls: type[MessageT]) -> Iterator[MessageT]:
        known = {**self._declared(), **_by_name([cls])}
        for sending in self._sendings.values():
            found = known.get(sending.name) or registry.find(sending.name)
            if found is not None and issubclass(found, cls):
                yield found.model_validate_json(sending.content)

    def _declared(self) -> dict[str, MessageType]:
        handlers = (handler for service in self._services for handler in service.handlers)
        emits = [*(s.emits for s in self._services), *(handler.emits for handler in handlers)]
        return _by_name(chain.from_iterable(emits))

    def _note(self, name: str, detail: Any) -> None:
        content, id = detail, str(uuid4())
        if "metadata" in detail and "data" in detail:
            content, id = detail["data"], detail["metadata"]["id"]
        self._sendings.setdefault(id, _Sending(id, name, to_json(content)))


def _by_name(types: Iterable[MessageType]) -> dict[str, MessageType]:
    return {contract_of(cls).name: cls for cls in types if cls.__contract__ is not None}


class _NotedBus:
    def __init__(self, bus: MemoryBus, note: Callable[[str, Any], None]) -> None:
        self._bus = bus
        self._note = note
        self.require = bus.require

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        failures = await self._bus.put(bus, entries)
        refused = {failure.index for failure in failures}
        for index, entry in enumerate(entries):
            if index not in refused:
                self._note(entry.detail_type, from_json(entry.detail))
        return failures


class _NotedQueues:
    def __init__(self, queues: MemoryQueues, note: Callable[[str, Any], None]) -> None:
        self._queues = queues
        self._note = note
        self.receive = queues.receive
        self.delete = queues.delete
        self.change_visibility = queues.change_visibility
        self.depth = queues.depth

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        # A command may be for a service that is not under test, and so has no queue here.
        exists = self._queues.exists(queue)
        failures = await self._queues.send(queue, entries) if exists else []
        refused = {failure.index for failure in failures}
        for index, entry in enumerate(entries):
            if index not in refused:
                self._note_body(entry.body)
        return failures

    def _note_body(self, body: str) -> None:
        try:
            wire = from_json(body)
        except ValueError:
            return
        if isinstance(wire, dict) and isinstance(wire.get("detail"), dict):
            self._note(str(wire.get("detail-type")), wire["detail"])
