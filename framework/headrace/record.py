"""The inbox record as it stands in the table: one item per consumer and event."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zlib import crc32

from headrace.envelope import Cancellation, Outgoing
from headrace.observer import SagaChange
from headrace.ports import AttributeValue, Item, ItemKey

KEY_PREFIX: Final = "inbox#"
"""How the partition key of every record begins."""

RELAY_INDEX: Final = "relay"
"""The index of records that no message brings up again; `headrace.relay` reads it."""

RELAY_SHARDS: Final = 8
"""Partitions of that index. One takes 1,000 writes a second, and a record makes two. To have more
is always possible; to have fewer would leave records where nobody looks."""


class Status(StrEnum):
    """How far a record is: `leased` before the commit, `pending` until everything is out."""

    LEASED = "leased"
    PENDING = "pending"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Trail:
    """What a record tells of the history of something: the partition of the index that gathers it,
    a `note` in JSON, and for how long it is told. Observers are told of the `remarks` until it is
    noted that they were."""

    pk: str
    note: str
    keep: timedelta = timedelta(0)
    remarks: tuple[SagaChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What stands in the table for one consumer and one event.

    `commit_id` is new at every attempt to commit. `outgoing` is empty once `done`.
    `expires_at` is in epoch seconds; `None` while it must not expire. `holder` and `held_until`
    are those of a lease, and `failures` how often the handler failed under one; it has no `holder`
    once it was released. Work that no message started also has an `answer` and what tells its
    `content` from another's, and `relayed` names the service whose relay looks after it. One with a
    `trail` stands in the index as well, for as long as it stands at all.
    """

    key: ItemKey
    commit_id: str
    status: Status
    expires_at: int | None
    outgoing: tuple[Outgoing | Cancellation, ...] = ()
    holder: str | None = None
    held_until: datetime | None = None
    failures: int = 0
    answer: str | None = None
    content: str | None = None
    relayed: str | None = None
    since: datetime | None = None
    trail: Trail | None = None

    @property
    def done(self) -> bool:
        return self.status is Status.DONE

    def as_item(self) -> Item:
        item = self.key.attributes()
        item["commit_id"] = {"S": self.commit_id}
        item["status"] = {"S": self.status.value}
        if self.expires_at is not None:
            item["expires_at"] = {"N": str(self.expires_at)}
        if self.outgoing:
            item["outgoing"] = {"L": [_dump(outgoing) for outgoing in self.outgoing]}
        if self.holder is not None:
            item["holder"] = {"S": self.holder}
        if self.answer is not None:
            item["answer"] = {"S": self.answer}
        if self.content is not None:
            item["content"] = {"S": self.content}
        if self.held_until is not None:
            item["held_until"] = {"N": milliseconds(self.held_until)}
        if self.relayed is not None and self.since is not None and not self.done:
            item[f"{RELAY_INDEX}_pk"] = {"S": shard(self.relayed, _shard_of(self.key))}
            item[f"{RELAY_INDEX}_sk"] = {"S": moment(self.since)}
        if self.trail is not None and self.since is not None:
            item[f"{RELAY_INDEX}_pk"] = {"S": self.trail.pk}
            item[f"{RELAY_INDEX}_sk"] = {"S": moment(self.since)}
            item["note"] = {"S": self.trail.note}
            if self.trail.remarks:
                item["remarks"] = {"L": [_remark(each) for each in self.trail.remarks]}
        return item

    @classmethod
    def from_item(cls, table: str, item: Item) -> Record:
        expires_at, held_until = item.get("expires_at"), item.get("held_until")
        relay = item.get(f"{RELAY_INDEX}_pk")
        since = item.get(f"{RELAY_INDEX}_sk")
        note = _text(item, "note")
        return cls(
            key=ItemKey(table, item["pk"]["S"], item["sk"]["S"]),
            commit_id=item["commit_id"]["S"],
            status=Status(item["status"]["S"]),
            expires_at=None if expires_at is None else int(expires_at["N"]),
            outgoing=tuple(_load(value) for value in item.get("outgoing", {"L": []})["L"]),
            holder=_text(item, "holder"),
            held_until=None if held_until is None else _from_milliseconds(held_until["N"]),
            failures=int(item.get("failures", {"N": "0"})["N"]),
            answer=_text(item, "answer"),
            content=_text(item, "content"),
            relayed=relay["S"].rpartition("#")[0] if relay is not None and note is None else None,
            since=None if since is None else datetime.fromisoformat(since["S"]),
            trail=None if relay is None or note is None else _trail(relay["S"], note, item),
        )


def shard(service: str, number: int) -> str:
    """The partition key of the relay's index."""
    return f"{service}#{number}"


def moment(time: datetime) -> str:
    """A time as text that sorts by time."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def milliseconds(time: datetime) -> str:
    return str(round(time.timestamp() * 1000))


def _from_milliseconds(text: str) -> datetime:
    return datetime.fromtimestamp(int(text) / 1000, UTC)


def _shard_of(key: ItemKey) -> int:
    # Not `hash`, which differs from process to process.
    return crc32(key.pk.encode()) % RELAY_SHARDS


def _text(item: Item, name: str) -> str | None:
    value = item.get(name)
    return None if value is None else str(value["S"])


def _trail(pk: str, note: str, item: Item) -> Trail:
    remarks = (each["M"] for each in item.get("remarks", {"L": []})["L"])
    return Trail(
        pk,
        note,
        remarks=tuple(
            SagaChange(r["saga"]["S"], r["key"]["S"], r["status"]["S"], _text(r, "reason"))
            for r in remarks
        ),
    )


def _remark(change: SagaChange) -> AttributeValue:
    fields = asdict(change)
    return {"M": {name: {"S": text} for name, text in fields.items() if text is not None}}


def _dump(outgoing: Outgoing | Cancellation) -> AttributeValue:
    if isinstance(outgoing, Cancellation):
        return {"M": {"cancel": {"S": outgoing.schedule}}}
    fields = {
        "id": outgoing.id,
        "type": outgoing.detail_type,
        "detail": outgoing.detail,
        "time": outgoing.time.isoformat(),
        "source": outgoing.source,
        "owner": outgoing.owner,
        "trace": outgoing.trace_header,
        "group": outgoing.group_id,
        "due": None if outgoing.due is None else outgoing.due.isoformat(),
        "schedule": outgoing.schedule,
    }
    return {"M": {name: {"S": text} for name, text in fields.items() if text is not None}}


def _load(value: AttributeValue) -> Outgoing | Cancellation:
    fields = {name: text["S"] for name, text in value["M"].items()}
    if "cancel" in fields:
        return Cancellation(fields["cancel"])
    due = fields.get("due")
    return Outgoing(
        id=fields["id"],
        detail_type=fields["type"],
        detail=fields["detail"],
        time=datetime.fromisoformat(fields["time"]).astimezone(UTC),
        source=fields.get("source"),
        owner=fields.get("owner"),
        trace_header=fields.get("trace"),
        group_id=fields.get("group"),
        due=None if due is None else datetime.fromisoformat(due).astimezone(UTC),
        schedule=fields.get("schedule"),
    )
