"""Letters that failed alike, and which of them are meant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from headrace.dlq.letters import Letter
from headrace.text import counted, did_you_mean

FINGERPRINT: Final = 8
"""Characters of a fingerprint: enough to tell apart what one queue holds, and few to type."""


@dataclass(frozen=True, slots=True)
class Group:
    """Letters of one queue with one fingerprint, oldest first."""

    fingerprint: str
    letters: tuple[Letter, ...]

    @property
    def example(self) -> Letter:
        return self.letters[-1]

    @property
    def first_time(self) -> datetime | None:
        return min(filter(None, (letter.last_time for letter in self.letters)), default=None)

    @property
    def last_time(self) -> datetime | None:
        return max(filter(None, (letter.last_time for letter in self.letters)), default=None)

    @property
    def reasons(self) -> int:
        """How many different reasons there are: what failed in one place may have several."""
        return len({letter.reason for letter in self.letters})

    @property
    def cause(self) -> str:
        """What these letters have in common, in a few words."""
        letter = self.example
        what = letter.error or ("not written down" if letter.reconstructed else "given up")
        where = f" in {letter.handler}" if letter.handler else ""
        return f"{what}{where}, {named(letter)}"

    def as_json(self) -> dict[str, Any]:
        letter = self.example
        return {
            "group": self.fingerprint,
            "count": len(self.letters),
            "queue": letter.source,
            "event": letter.name,
            "version": letter.version,
            "handler": letter.handler,
            "error": letter.error,
            "frames": list(letter.note.frames),
            "first_time": self.first_time,
            "last_time": self.last_time,
            "example_id": letter.original_id,
            "reason": letter.reason,
            "reasons": self.reasons,
            "reconstructed": letter.reconstructed,
        }


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: those of which all that is given here is so.

    `group` is a fingerprint or its beginning, `id` what SQS calls the letter or the message that it
    is a copy of, `event` a name on the wire, `handler` a name with or without its service.
    """

    group: str | None = None
    id: str | None = None
    event: str | None = None
    handler: str | None = None

    @property
    def is_everything(self) -> bool:
        return self == Selection()

    def takes(self, letter: Letter) -> bool:
        return (
            (self.group is None or fingerprint(letter).startswith(self.group))
            and self.id in (None, letter.id, letter.original_id)
            and self.event in (None, letter.name)
            and (self.handler is None or self.handler in _names(letter))
        )

    def why_none(self, letters: Sequence[Letter]) -> str:
        """Why none of these letters is meant, in a sentence that says what there is instead."""
        if not letters:
            return "There are no dead letters to be seen."
        looked = f"({counted(len(letters), 'letter')} looked at)"
        for name, value in self._given.items():
            if not any(map(Selection(**{name: value}).takes, letters)):
                hint = did_you_mean(value, _kinds(name, letters), "There are")
                return f"No letter has the {name} {value!r} {looked}. {hint}"
        return f"No letter has all of this at once: {self} {looked}."

    @property
    def _given(self) -> dict[str, str]:
        given = {"group": self.group, "id": self.id, "event": self.event, "handler": self.handler}
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self._given.items())


def fingerprint(letter: Letter) -> str:
    """A short name for what failed and where: the type of the exception, the places in the user's
    code that it passed, the event and its version, and the handler."""
    note = letter.note
    parts = (
        letter.source,
        letter.error or ("-" if note.reason is None else "given up"),
        note.digest or "-",
        letter.name or "-",
        str(letter.version or "-"),
        letter.handler or "-",
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:FINGERPRINT]


def grouped(letters: Iterable[Letter]) -> list[Group]:
    """The groups, the largest first; the letters of each, oldest first."""
    found: dict[str, list[Letter]] = {}
    for letter in sorted(letters, key=lambda letter: letter.order):
        found.setdefault(fingerprint(letter), []).append(letter)
    groups = [Group(name, tuple(each)) for name, each in found.items()]
    return sorted(groups, key=lambda group: (-len(group.letters), group.fingerprint))


def named(letter: Letter) -> str:
    """The event and its version, as far as the body says so."""
    if letter.name is None:
        return "a body that says no name"
    return letter.name if letter.version is None else f"{letter.name} v{letter.version}"


def heads(letters: Sequence[Letter]) -> list[Letter]:
    """The first letter of each message group of a FIFO queue."""
    first: dict[str | None, Letter] = {}
    for letter in sorted(letters, key=lambda letter: letter.order):
        first.setdefault(letter.delivery.group_id, letter)
    return list(first.values())


def _kinds(name: str, letters: Sequence[Letter]) -> set[str]:
    """What letters there are, as `Selection` tells them apart by this."""
    match name:
        case "group":
            return {fingerprint(letter) for letter in letters}
        case "id":
            return {letter.original_id for letter in letters}
        case "event":
            return {letter.name for letter in letters if letter.name is not None}
        case _:
            return {name for letter in letters for name in _names(letter)}


def beginning(letters: Iterable[Letter], id: str) -> list[Letter]:
    """The letters with this message id, or whose original has it; if there is none, those of which
    it is the beginning."""
    known = [(letter, (letter.id, letter.original_id)) for letter in letters]
    exact = [letter for letter, ids in known if id in ids]
    return exact or [letter for letter, ids in known if any(i.startswith(id) for i in ids)]


def _names(letter: Letter) -> set[str]:
    consumers = [letter.note.handler] if letter.note.handler else []
    consumers += [] if consumers else [handler.consumer for handler in letter.takers]
    return {name for each in consumers for name in (each, each.rpartition(".")[2])}
