"""A saga as it stands in the table: one item, whatever happens, and its history in others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from zlib import crc32

import orjson
from pydantic import Field

from headrace.entity import Entity
from headrace.errors import HeadraceError
from headrace.ports import Item
from headrace.record import RELAY_INDEX, moment
from headrace.saga.definition import Definition
from headrace.saga.progress import (
    NOT_BEGUN,
    Direction,
    Progress,
    Status,
    StepProgress,
    StepStatus,
    Timer,
)

SHARDS: Final = 8
"""Partitions of the index for the sagas of one version that are not over. One takes 1,000 writes a
second, and a saga makes two: one when it begins, one when it ends."""


class SagaItem(Entity, pk="saga#{consumer}#{key}"):
    """One saga. While it is not over the index has it, under its version; once it is, it expires.

    `progress` and `state` are JSON; the rest says the same for who looks at the table.
    """

    consumer: str
    key: str
    version: int
    status: Status
    state: str
    progress: str
    begun: datetime
    changed: datetime
    reason: str | None = None
    stuck: str | None = None
    trouble: str | None = None
    expires: int | None = Field(default=None, exclude=True)

    kept_by_headrace: ClassVar[frozenset[str]] = frozenset(
        {"expires_at", f"{RELAY_INDEX}_pk", f"{RELAY_INDEX}_sk"}
    )

    def attributes_of_headrace(self) -> Item:
        if self.expires is not None:
            return {"expires_at": {"N": str(self.expires)}}
        kind = "stuck" if self.status is Status.STUCK else "open"
        number = crc32(self.key.encode()) % SHARDS
        return {
            f"{RELAY_INDEX}_pk": {"S": shard(self.consumer, self.version, kind, number)},
            f"{RELAY_INDEX}_sk": {"S": f"{moment(self.begun)} {self.key}"},
        }


def shard(consumer: str, version: int, kind: str, number: int) -> str:
    """The partition of the index that holds sagas of one version: `open` ones, or `stuck` ones."""
    return f"saga-{kind}#{consumer}#{version}#{number}"


def trail_of(consumer: str, key: str) -> str:
    """The partition of the index that holds the history of one saga."""
    return f"saga-history#{consumer}#{key}"


def item_of(
    consumer: str, key: str, definition: Definition, progress: Progress, now: datetime
) -> SagaItem:
    """The saga as it is to stand in the table."""
    expiry = now + definition.retention
    return SagaItem(
        consumer=consumer,
        key=key,
        version=definition.version,
        status=progress.status,
        state=progress.state.model_dump_json(round_trip=True),
        progress=orjson.dumps(_written(progress), option=orjson.OPT_UTC_Z).decode(),
        begun=progress.begun,
        changed=now,
        reason=progress.reason,
        stuck=progress.stuck,
        trouble=progress.trouble,
        expires=int(expiry.timestamp()) if progress.ended else None,
    )


@dataclass(frozen=True, slots=True)
class Course:
    """How far a saga is, as its item says without its class. `steps` are those that were begun."""

    turn: int
    direction: Direction
    steps: dict[str, StepProgress]
    deadline: datetime | None
    timer: Timer | None

    def all_steps(self, definition: Definition | None) -> dict[str, StepProgress]:
        """Those that were not begun as well, in the order of the class, as far as it is known."""
        names = dict.fromkeys([*(definition.steps if definition else ()), *self.steps])
        return {name: self.steps.get(name, NOT_BEGUN) for name in names}


def course_of(item: SagaItem) -> Course:
    fields = orjson.loads(item.progress)
    timer = fields.get("timer")
    return Course(
        turn=fields["turn"],
        direction=Direction(fields["direction"]),
        steps=dict(_steps(fields["steps"])),
        deadline=_time(fields.get("deadline")),
        timer=timer and Timer(timer["turn"], _sure(timer["at"]), timer["scheduled"]),
    )


def progress_of(definition: Definition, item: SagaItem) -> Progress:
    """How far a saga is. Raises `HeadraceError` if its state does not fit its class any more."""
    course = course_of(item)
    try:
        state = definition.cls.model_validate_json(item.state)
    except ValueError as error:
        raise HeadraceError(
            f"The state of the saga {item.consumer} {item.key!r} does not fit "
            f"{definition.cls.__name__}: {error}. Give new fields a default, and leave the others "
            "as they are; or write a new version of the saga."
        ) from error
    return Progress(
        state=state,
        begun=item.begun,
        deadline=course.deadline,
        steps=course.steps,
        direction=course.direction,
        ended=item.status in (Status.COMPLETED, Status.COMPENSATED),
        stuck=item.stuck,
        trouble=item.trouble,
        reason=item.reason,
        timer=course.timer,
        turn=course.turn,
    )


def _written(progress: Progress) -> dict[str, Any]:
    written: dict[str, Any] = {
        "turn": progress.turn,
        "direction": progress.direction.value,
        "steps": {name: _step(step) for name, step in progress.steps.items()},
    }
    if progress.deadline is not None:
        written["deadline"] = progress.deadline.astimezone(UTC)
    if progress.timer is not None:
        written["timer"] = asdict(progress.timer)
    return written


def _step(step: StepProgress) -> dict[str, Any]:
    """Only what is not as it was at first: most steps are done, and nothing else."""
    fields = {**asdict(step), "status": step.status.value}
    return {name: value for name, value in fields.items() if value}


def _steps(written: dict[str, Any]) -> Iterator[tuple[str, StepProgress]]:
    for name, fields in written.items():
        status, due = StepStatus(fields.pop("status")), _time(fields.pop("due", None))
        yield name, StepProgress(status, due=due, **fields)


def _time(text: str | None) -> datetime | None:
    return None if text is None else _sure(text)


def _sure(text: str) -> datetime:
    return datetime.fromisoformat(text)
