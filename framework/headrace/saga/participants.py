"""What is around a saga while it runs: who takes its commands, and what they have answered.

A participant keeps its contract: it does a step once, however often it is asked; it accepts the
undo of what never happened, and refuses the step if that arrives later. Beyond that it may do what
it likes: choose any of its answers, let a command lie as long as it wants, or for ever. What it
answered may come at any time, and again.

The surroundings of one saga are a string of bytes, so that they can be compared and kept by the
million: for each step a few bytes, then those that count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from headrace.events import Message, MessageType
from headrace.saga.definition import Definition, Step
from headrace.saga.outline import UNDOING, Edit, Outcome, Reply, Statuses
from headrace.saga.progress import StepStatus

Surroundings: TypeAlias = bytes

PENDING: Final = 0xF1
"""An answer that has not come yet."""

DELIVERED: Final = 0xF2
"""An answer that has come, and may come again."""

_EFFECT, _ASKED, _UNDO_ASKED, _RANK = range(4)
_HEAD: Final = 4
"""Bytes of a step before those of its answers."""

_FRESH, _STANDS, _CLOSED, _SETTLED = range(4)
"""What is there of a step: nothing; its effect; nothing, and there never will be; whatever an
operator made of it."""

_OPEN: Final = frozenset({StepStatus.DONE, StepStatus.UNKNOWN}) | UNDOING
_TWICE: Final = 2
_MANY: Final = 6
"""Commands that lie with one participant: more of the same are not counted."""


class Taken(NamedTuple):
    """A participant took a command: what it did, and the bytes of the step after that."""

    what: str
    after: bytes


class Around(NamedTuple):
    """What is around a saga after a transition, and what is wrong with that transition."""

    after: Surroundings
    wrong: tuple[str, ...]


class Participants:
    """Those who take the commands of one saga."""

    def __init__(
        self, definition: Definition, replies: Mapping[MessageType, Sequence[Message]], free: int
    ) -> None:
        self.definition = definition
        self.steps = list(definition.steps.values())
        self.replies: list[Reply] = []
        self.slots: list[int] = []
        self._seats: list[_Seat] = []
        offset = 0
        for number, step in enumerate(self.steps):
            seat = _Seat(number, step, offset)
            for cls in _answers(step):
                self._add(seat, cls, replies[cls])
            self._seats.append(seat)
            offset = seat.end
        self._free = offset
        self._intervened = offset + free
        self.nobody: Surroundings = bytes(offset + free + 1)

    def taken(self, around: Surroundings) -> Iterator[tuple[str, Surroundings]]:
        """What participants may do next."""
        for seat in self._seats:
            before = around[seat.start : seat.end]
            for what, after in seat.taken(before):
                yield what, around[: seat.start] + after + around[seat.end :]

    def unanswered(self, around: Surroundings) -> list[str]:
        """The steps, and what undoes them, that somebody was asked for and has not answered."""
        names = [s.step.name for s in self._seats if around[s.start + _ASKED]]
        undos = (s.step.reverse for s in self._seats if around[s.start + _UNDO_ASKED])
        return names + [undo.name for undo in undos if undo]

    def noticed(self, around: Surroundings, alive: int) -> Surroundings:
        """Without what makes no difference any more: answers that the saga ignores for ever, and
        commands that nothing but such an answer comes of."""
        parts = (s.noticed(around[s.start : s.end], alive) for s in self._seats)
        return b"".join((*parts, around[self._free :]))

    def allows(self, outcome: Outcome, around: Surroundings) -> bool:
        """Whether this may come, or was there as often as we look at."""
        for edit, number in outcome.edits:
            if edit is Edit.INTERVENED and around[self._intervened]:
                return False
            if edit is Edit.COUNTED and around[self._free + number] >= _TWICE:
                return False
        return True

    def follow(self, outcome: Outcome, statuses: Statuses, around: Surroundings) -> Around:
        """What a transition means for those around; `statuses` are those after it."""
        if not outcome.edits:
            return Around(around, outcome.wrong)
        after = bytearray(around)
        wrong = [*outcome.wrong, *self._out_of_order(outcome, statuses, around)]
        last = max((around[seat.start + _RANK] for seat in self._seats), default=0)
        for edit, number in outcome.edits:
            match edit:
                case Edit.COUNTED:
                    after[self._free + number] += 1
                case Edit.INTERVENED:
                    after[self._intervened] = 1
                case _:
                    wrong += self._seats[number].follow(edit, after, last)
        return Around(bytes(after), tuple(wrong))

    def wrong_at_end(
        self, statuses: Statuses, around: Surroundings, *, compensated: bool
    ) -> Iterator[str]:
        """What must not be when a saga is over, and nothing is on its way to it any more."""
        for seat in self._seats:
            effect, status = around[seat.start], statuses[seat.number]
            if compensated:
                yield from self._left(seat.step, effect)
            else:
                yield from _missing(seat.step, effect, status)

    def _left(self, step: Step, effect: int) -> Iterator[str]:
        if effect != _STANDS:
            return
        if step.reverse is None and step.pivot and not step.nothing_to_undo:
            yield f"it is compensated, and {step.name} happened, the point of no return"
        elif step.reverse is not None:
            yield f"it is compensated, and {step.name} happened and is not undone"
        elif step.sends and not step.nothing_to_undo:
            yield (
                f"it is compensated, and {step.name} happened and has no undo: write "
                f"@{step.name}.undo, or nothing_to_undo=True"
            )

    def _out_of_order(
        self, outcome: Outcome, statuses: Statuses, around: Surroundings
    ) -> Iterator[str]:
        undone = [n for e, n in outcome.edits if e in (Edit.UNDO_ASKED, Edit.UNDONE)]
        for place, number in enumerate(undone):
            others = (n for n, status in enumerate(statuses) if self._to_undo(n, status))
            later = [*others, *undone[place + 1 :]]
            for other in later:
                if self._rank(around, other) > self._rank(around, number) > 0:
                    yield (
                        f"{self.steps[number].name} is undone before {self.steps[other].name}, "
                        "which was done later"
                    )

    def _to_undo(self, number: int, status: StepStatus) -> bool:
        return status in _OPEN and self.steps[number].reverse is not None

    def _rank(self, around: Surroundings, number: int) -> int:
        return around[self._seats[number].start + _RANK]

    def _add(self, seat: _Seat, cls: MessageType, messages: Sequence[Message]) -> None:
        for number, message in enumerate(messages, start=1):
            label = cls.__name__ + (f" (example {number})" if len(messages) > 1 else "")
            seat.add(cls, label, 1 << len(self.replies))
            self.slots.append(seat.end - 1)
            self.replies.append(Reply(message, label, seat.number))


class _Seat:
    """The participant of one step."""

    def __init__(self, number: int, step: Step, start: int) -> None:
        self.number = number
        self.step = step
        self.start = start
        self.end = start + _HEAD
        self._slots: dict[MessageType, list[int]] = {}
        self._labels: dict[int, str] = {}
        self._bits: dict[MessageType, int] = {}
        self._mask = 0
        self._known: dict[bytes, list[Taken]] = {}
        self._noticed: dict[tuple[bytes, int], bytes] = {}

    def add(self, cls: MessageType, label: str, bit: int) -> None:
        slot = self.end - self.start
        self._slots.setdefault(cls, []).append(slot)
        self._labels[slot] = label
        self._bits[cls] = self._bits.get(cls, 0) | bit
        self._mask |= bit
        self.end += 1

    def noticed(self, before: bytes, alive: int) -> bytes:
        key = (before, alive & self._mask)
        known = self._noticed.get(key)
        if known is None:
            known = self._noticed[key] = self._without_the_dead(bytearray(before), alive)
        return known

    def _without_the_dead(self, around: bytearray, alive: int) -> bytes:
        step, undo, effect = self.step, self.step.reverse, around[_EFFECT]
        undone = undo.done if undo else ()
        told = any(around[slot] == DELIVERED for slot in self._of(undone))
        dead = [
            types
            for types in (
                step.done,
                (*step.failed, *step.again),
                undone,
                undo.failed if undo else (),
            )
            if not any(self._bits.get(cls, 0) & alive for cls in types)
        ]
        for types in dead:
            for slot in self._of(types):
                around[slot] = 0
        if undone in dead and told:
            around[self._of(undone)[0]] = DELIVERED
        ignored = {_STANDS: [step.done], _CLOSED: [(*step.failed, *step.again)]}
        ignored[_SETTLED] = [*ignored[_STANDS], *ignored[_CLOSED]]
        if effect in ignored and all(types in dead for types in ignored[effect]):
            around[_ASKED] = 0
        if effect in (_CLOSED, _SETTLED) and undone in dead:
            around[_UNDO_ASKED] = 0
        return bytes(around)

    def taken(self, before: bytes) -> list[Taken]:
        known = self._known.get(before)
        if known is None:
            known = self._known[before] = [*self._forward(before), *self._back(before)]
        return known

    def follow(self, edit: Edit, around: bytearray, last: int) -> Iterator[str]:
        """Change the bytes of this step, and say what is wrong about that."""
        effect = around[self.start]
        match edit:
            case Edit.ASKED:
                self._ask(around, _ASKED)
            case Edit.HAPPENED:
                around[self.start] = effect if effect == _SETTLED else _STANDS
            case Edit.UNDO_ASKED | Edit.UNDO_AGAIN:
                self._ask(around, _UNDO_ASKED)
                if self._was_told(around):
                    yield f"{self.step.name} is undone twice"
            case Edit.UNDONE:
                if effect == _CLOSED:
                    yield f"{self.step.name} is undone twice"
                around[self.start] = effect if effect == _SETTLED else _CLOSED
            case Edit.SETTLED:
                around[self.start] = _SETTLED
            case Edit.PLACED:
                around[self.start + _RANK] = last + 1
            case Edit.DISPLACED:
                around[self.start + _RANK] = 0
            case Edit.COUNTED | Edit.INTERVENED:
                raise AssertionError(f"{edit} is of no step")

    def _ask(self, around: bytearray, what: int) -> None:
        number = self.start + what
        around[number] = min(around[number] + 1, _MANY)

    def _was_told(self, around: bytearray) -> bool:
        """Whether the saga had the answer that this is undone."""
        undo = self.step.reverse
        slots = self._of(undo.done if undo else ())
        return any(around[self.start + slot] == DELIVERED for slot in slots)

    def _forward(self, before: bytes) -> Iterator[Taken]:
        if not before[_ASKED]:
            return
        step, effect = self.step, before[_EFFECT]
        if effect == _STANDS:
            slots = self._said(before, step.done)
            yield from self._answer(before, _ASKED, slots, f"{step.name} was done before")
        elif effect == _CLOSED:
            what = f"{step.name} arrives after its undo, and is refused"
            slots = self._of(step.failed)
            yield from self._answer(before, _ASKED, slots, what)
        else:
            done = None if effect == _SETTLED else _STANDS
            for types, what, new in (
                (step.done, "is done", done),
                (step.failed, "fails", None),
                (step.again, "is put off", None),
            ):
                if types:
                    slots, said = self._of(types), f"{step.name} {what}"
                    yield from self._answer(before, _ASKED, slots, said, new)

    def _back(self, before: bytes) -> Iterator[Taken]:
        undo, effect = self.step.reverse, before[_EFFECT]
        if undo is None or not before[_UNDO_ASKED]:
            return
        new = None if effect == _SETTLED else _CLOSED
        if effect == _CLOSED:
            slots, what = self._said(before, undo.done), "was done before"
        elif effect == _FRESH:
            slots, what = self._of(undo.done), "is done for what never happened"
        else:
            slots, what = self._of(undo.done), "is done"
        yield from self._answer(before, _UNDO_ASKED, slots, f"{undo.name} {what}", new)
        if effect == _STANDS and undo.failed:
            slots = self._of(undo.failed)
            yield from self._answer(before, _UNDO_ASKED, slots, f"{undo.name} is refused")

    def _answer(
        self, before: bytes, taken: int, slots: Sequence[int], what: str, effect: int | None = None
    ) -> Iterator[Taken]:
        after = bytearray(before)
        after[taken] -= 1
        if effect is not None:
            after[_EFFECT] = effect
        if not slots:
            yield Taken(what, bytes(after))
        for slot in slots:
            answered = bytearray(after)
            answered[slot] = PENDING
            yield Taken(f"{what}, and {self._labels[slot]} is on its way", bytes(answered))

    def _of(self, types: Sequence[MessageType]) -> list[int]:
        return [slot for cls in types for slot in self._slots.get(cls, ())]

    def _said(self, before: bytes, types: Sequence[MessageType]) -> list[int]:
        """The answers that were given before: the same again."""
        return [slot for slot in self._of(types) if before[slot]]


def _answers(step: Step) -> tuple[MessageType, ...]:
    undo = step.reverse
    return step.answers if undo is None else (*step.answers, *undo.done, *undo.failed)


def _missing(step: Step, effect: int, status: StepStatus) -> Iterator[str]:
    if status is StepStatus.SKIPPED:
        return
    if effect == _FRESH:
        yield f"it is completed, and {step.name} never happened"
    elif effect == _CLOSED:
        yield f"it is completed, and {step.name} was undone"
