"""What the inbox of a service says about dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.dlq.letters import Letter
from headrace.group import GroupCommit
from headrace.inbox import Inbox
from headrace.limits import BATCH_GET_KEYS
from headrace.ports import ItemKey, Ports
from headrace.record import Record, Status
from headrace.service import Service


@dataclass(frozen=True, slots=True)
class Standing:
    """The inbox records of one letter, by the consumer whose they are.

    It is `provable` if every handler that takes the letter keeps a record: then the records say
    whether it is done, and nothing else has to be looked at.
    """

    records: Mapping[str, Record | None] = field(default_factory=dict)
    provable: bool = False

    @property
    def done(self) -> bool:
        """Whether every handler has done it, and everything it caused is out."""
        return self.provable and all(record and record.done for record in self.records.values())

    @property
    def stands(self) -> bool:
        """Whether every handler's effects stand, whether or not what they caused is out."""
        return self.provable and all(map(_stands, self.records.values()))

    @property
    def pending(self) -> list[Record]:
        """The records that hold messages which may not be out."""
        return [r for r in self.records.values() if r and r.status is Status.PENDING]


class Records:
    """The inbox records of one service, read in batches."""

    def __init__(self, service: Service, ports: Ports) -> None:
        self._clock = ports.clock
        self.inbox = (
            None
            if service.table is None
            else Inbox(
                ports.store,
                GroupCommit(ports.store, ports.randomness),
                ports.clock,
                ports.randomness,
                table=service.table,
                keep=service.redelivery_horizon,
            )
        )

    async def of(self, letters: Sequence[Letter]) -> dict[str, Standing]:
        """The standing of each letter, by the letter's own message id. Raises `CloudError`."""
        keys = {letter.id: self._keys(letter) for letter in letters}
        found = await self._read(key for each in keys.values() for key in each.values())
        return {
            letter.id: Standing(
                {consumer: found[key] for consumer, key in keys[letter.id].items()},
                bool(letter.takers) and len(keys[letter.id]) == len(letter.takers),
            )
            for letter in letters
        }

    def _keys(self, letter: Letter) -> dict[str, ItemKey]:
        if self.inbox is None or letter.event_id is None:
            return {}
        return {
            handler.consumer: self.inbox.key(handler.consumer, letter.event_id)
            for handler in letter.takers
            if not handler.idempotent
        }

    async def _read(self, keys: Iterable[ItemKey]) -> dict[ItemKey, Record | None]:
        distinct = list(dict.fromkeys(keys))
        found: dict[ItemKey, Record | None] = {}
        for start in range(0, len(distinct), BATCH_GET_KEYS):
            some = distinct[start : start + BATCH_GET_KEYS]
            records = await self.inbox.read(some) if self.inbox else []
            found |= {key: self._valid(r) for key, r in zip(some, records, strict=True)}
        return found

    def _valid(self, record: Record | None) -> Record | None:
        """`None` for a record that has expired: DynamoDB deletes it within days."""
        if record is None or record.expires_at is None:
            return record
        return record if record.expires_at >= self._clock.now().timestamp() else None


def _stands(record: Record | None) -> bool:
    return record is not None and record.status is not Status.LEASED
