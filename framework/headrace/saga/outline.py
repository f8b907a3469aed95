"""How far a saga is, without its times: so that there are finitely many ways to be.

All that may come to a saga in some place is tried on the pure machine, once, and what came out is
kept: the walk of `headrace.saga.explore` comes by the same place with many surroundings. Of the
times only the order counts: whatever is due may be due next, or all at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from headrace.errors import DefinitionError
from headrace.events import Message, MessageType
from headrace.saga import machine
from headrace.saga.definition import Definition, Retries, Step, Undo
from headrace.saga.machine import Action, Transition
from headrace.saga.progress import OVER, Direction, Progress, StepStatus, Timer

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PAST: Final = _NOW - timedelta(hours=1)
_LATER: Final = _NOW + timedelta(hours=1)

_FAR: Final = 20_000
"""Places that are looked at ahead, at most: a state that counts has no end of them."""

_DEADLINE: Final = "the deadline"
_OPERATOR: Final = "an operator"

UNDOING: Final = frozenset({StepStatus.UNDOING, StepStatus.UNDO_PAUSED})
ON_ITS_WAY: Final = frozenset({StepStatus.SENT, StepStatus.PAUSED})
_HAPPENED: Final = frozenset({StepStatus.DONE, StepStatus.UNKNOWN})
_UNDONE: Final = UNDOING | {StepStatus.UNDONE}

Statuses: TypeAlias = tuple[StepStatus, ...]


class Edit(StrEnum):
    """What a transition means for those around the saga, and for one step."""

    ASKED = "asked"
    HAPPENED = "happened"
    UNDO_ASKED = "undo asked"
    UNDO_AGAIN = "undo asked again"
    UNDONE = "undone"
    SETTLED = "settled"
    PLACED = "placed"
    DISPLACED = "displaced"
    COUNTED = "counted"
    INTERVENED = "intervened"


_BOUNDED: Final = frozenset({Edit.COUNTED, Edit.INTERVENED})
"""What may come so often, and no more."""


class Outcome(NamedTuple):
    """What becomes of a saga in one place when one thing comes. `edits` name a step, or a
    free-form handler, by its number; `wrong` says what must not be, whatever is around it."""

    to: int
    what: str
    changes: tuple[str, ...]
    edits: tuple[tuple[Edit, int], ...]
    wrong: tuple[str, ...]

    def is_nothing(self, place: int) -> bool:
        """Whether a saga in this place stays there, and nobody else is concerned."""
        return self.to == place and not self.edits and not self.wrong

    @property
    def sentence(self) -> str:
        return f"{self.what}: {'; '.join(self.changes) or 'nothing changes'}"


@dataclass(frozen=True, slots=True)
class Reply:
    """A message that a participant may answer with."""

    message: Message
    label: str
    step: int


class Place:
    """One way to be, and what may come by itself: `sudden`, and `woken` by all that is due. Of
    what may come, so much is `idle`: it changes nothing. `alive` has a bit for each reply that
    may change something here or later."""

    __slots__ = (
        *("alive", "due", "idle", "number", "progress", "replies", "statuses", "sudden", "woken"),
    )

    def __init__(self, number: int, progress: Progress, statuses: Statuses) -> None:
        self.number = number
        self.progress = progress
        self.statuses = statuses
        self.replies: dict[int, Outcome] = {}
        self.sudden: list[Outcome] | None = None
        self.idle = 0
        self.alive = ~0
        self.woken: Outcome | None = None
        self.due: list[str] = []


class Outline:
    """All ways for a saga to be, found as they are reached."""

    def __init__(
        self,
        definition: Definition,
        replies: Sequence[Reply],
        starts: Sequence[Message],
        free: Sequence[Message],
    ) -> None:
        self.definition = definition
        self.steps = list(definition.steps.values())
        self.replies = replies
        self.places: list[Place] = []
        self._starts = starts
        self._free = free
        self._known: dict[object, int] = {}
        self._names = {step.name: number for number, step in enumerate(self.steps)}
        undos = [(s.reverse.name, n) for n, s in enumerate(self.steps) if s.reverse]
        self._undos = dict(undos)

    def begin(self, start: Message) -> Outcome:
        """Where a start message leads to. Raises `DefinitionError` if it begins no saga."""
        try:
            transition = machine.begin(self.definition, start, _NOW)
        except DefinitionError:
            raise
        except Exception as error:
            raise DefinitionError(
                f"{self.definition.cls.__name__}.begin raises {_said(error)} for the example "
                f"{start!r}: give it others by starts=, or by its class method examples()."
            ) from error
        return self._outcome(None, f"{type(start).__name__} comes", transition)

    def replied(self, place: Place, reply: int) -> Outcome:
        """What an answer of a participant does."""
        known = place.replies.get(reply)
        if known is None:
            answer = self.replies[reply]
            known = self._answered(place, answer.message, f"{answer.label} comes")
            place.replies[reply] = known
        return known

    def sudden(self, place: Place) -> list[Outcome]:
        """What may come at any time, by nobody's answer, and changes something."""
        if place.sudden is None:
            tried = [*self._timers(place), *self._others(place)]
            place.sudden = [outcome for outcome in tried if not outcome.is_nothing(place.number)]
            place.idle = len(tried) - len(place.sudden)
        return place.sudden

    def look_ahead(self) -> None:
        """Find all places that can be reached, whatever is around, and what is of no interest
        there for ever. Leaves all of interest if there are too many of them."""
        most = 1 + 2 * len(self._free)
        bounded: dict[int, int] = {}
        came_from: dict[int, set[int]] = {}
        waiting = deque((place.number, 0) for place in self.places)
        while waiting:
            number, count = waiting.popleft()
            if number in bounded:
                continue
            bounded[number] = count
            if len(bounded) > _FAR:
                return
            for outcome in self._all(self.places[number]):
                costs = any(edit in _BOUNDED for edit, _ in outcome.edits)
                if costs and count == most:
                    continue
                came_from.setdefault(outcome.to, set()).add(number)
                # What is bounded comes last, so that each place is met with the lowest count.
                (waiting.append if costs else waiting.appendleft)((outcome.to, count + costs))
        self._find_alive(bounded, came_from)

    def _all(self, place: Place) -> list[Outcome]:
        answers = (self.replied(place, reply) for reply in range(len(self.replies)))
        return [*answers, *self.sudden(place)]

    def _find_alive(self, known: Collection[int], came_from: Mapping[int, set[int]]) -> None:
        """Of interest is what changes something in a place, or in one that comes after it."""
        for place in (self.places[number] for number in known):
            noticed = (r for r, o in place.replies.items() if not o.is_nothing(place.number))
            place.alive = sum(1 << reply for reply in noticed)
        waiting = list(known)
        while waiting:
            place = self.places[waiting.pop()]
            for number in came_from.get(place.number, ()):
                before = self.places[number]
                if before.alive | place.alive != before.alive:
                    before.alive |= place.alive
                    waiting.append(number)

    # --- what comes ---

    def _timers(self, place: Place) -> Iterator[Outcome]:
        progress = place.progress
        # A timer that was set earlier than the last one is of no interest any more.
        yield self._woken(place, self._due(progress), "an earlier timer comes", turn=-1)
        if progress.timer is None:
            return
        place.due = self._due(progress)
        yield self._woken(place, (), "the timer comes before anything is due")
        for name in place.due:
            yield self._woken(place, (name,), _over(name))
        place.woken = self._woken(place, place.due, _over(" and ".join(place.due)))
        if len(place.due) > 1:
            yield place.woken

    def _due(self, progress: Progress) -> list[str]:
        names = [step.name for step in self.steps if progress.step(step.name).due is not None]
        return names + [_DEADLINE] * (progress.deadline is not None)

    def _woken(self, place: Place, due: Collection[str], what: str, turn: int = 0) -> Outcome:
        timed = _timed(place.progress, due, _NOW)
        return self._tried(
            place, what, lambda: machine.woken(self.definition, timed, timed.turn + turn, _NOW)
        )

    def _others(self, place: Place) -> Iterator[Outcome]:
        for start in self._starts:
            yield self._answered(place, start, f"{type(start).__name__} comes again")
        for number, event in enumerate(self._free):
            outcome = self._answered(place, event, f"{type(event).__name__} comes")
            yield self._counted(place, outcome, number)
        if place.progress.stuck is not None:
            for action in (Action.RESUME, Action.SKIP):
                outcome = self._intervened(place, action)
                edits = (*self._settled(place, action), (Edit.INTERVENED, 0), *outcome.edits)
                yield outcome._replace(edits=edits)
        yield self._intervened(place, Action.COMPENSATE)

    def _counted(self, place: Place, outcome: Outcome, number: int) -> Outcome:
        """An event that adds to the state each time may come twice, and no more."""
        if self.places[outcome.to].progress.state == place.progress.state:
            return outcome
        return outcome._replace(edits=(*outcome.edits, (Edit.COUNTED, number)))

    def _settled(self, place: Place, action: Action) -> tuple[tuple[Edit, int], ...]:
        if action is not Action.SKIP:
            return ()
        return ((Edit.SETTLED, self._names[str(place.progress.stuck)]),)

    def _intervened(self, place: Place, action: Action) -> Outcome:
        timed = _timed(place.progress, (), _LATER)
        return self._tried(
            place,
            f"{_OPERATOR} wants {action.value}",
            lambda: machine.intervened(self.definition, timed, action, _OPERATOR, "", _NOW),
            skipped=place.progress.stuck if action is Action.SKIP else None,
        )

    def _answered(self, place: Place, message: Message, what: str) -> Outcome:
        timed = _timed(place.progress, (), _LATER)
        return self._tried(
            place,
            what,
            lambda: machine.answered(self.definition, timed, message, _NOW),
            by=type(message),
        )

    # --- what becomes of it ---

    def _tried(
        self,
        place: Place,
        what: str,
        act: Callable[[], Transition],
        *,
        by: MessageType | None = None,
        skipped: str | None = None,
    ) -> Outcome:
        try:
            return self._outcome(place, what, act(), by=by, skipped=skipped)
        except Exception as error:
            # A dead letter: for the saga it is as if nothing had come.
            said = _said(error)
            return Outcome(place.number, what, (f"it raises {said}",), (), (f"{what}: {said}",))

    def _outcome(
        self,
        place: Place | None,
        what: str,
        transition: Transition,
        *,
        by: MessageType | None = None,
        skipped: str | None = None,
    ) -> Outcome:
        after = self._place(transition.progress)
        before = place.statuses if place else (StepStatus.WAITING,) * len(self.steps)
        forward = place is None or place.progress.direction is Direction.FORWARD
        sent = list(dict.fromkeys(name for name, _ in transition.sent))
        edits = [
            *self._asked(sent, before),
            *self._silent(transition.progress, before, after.statuses, sent, by, skipped),
            *_placed(before, after.statuses),
        ]
        wrong = [
            *self._too_early(sent, after.statuses),
            *self._undone_too_early(edits, after.statuses, forward),
            *self._turned(forward, transition.progress, before),
            *self._sleeps(transition.progress),
        ]
        changes = tuple(transition.changes)
        return Outcome(after.number, what, changes, tuple(edits), tuple(wrong))

    def _asked(self, sent: Sequence[str], before: Statuses) -> Iterator[tuple[Edit, int]]:
        for name in sent:
            if name in self._names:
                number = self._names[name]
                yield Edit.ASKED if self.steps[number].waits else Edit.HAPPENED, number
            elif name in self._undos:
                number = self._undos[name]
                undo = self.steps[number].reverse
                again = Edit.UNDO_AGAIN if before[number] in UNDOING else Edit.UNDO_ASKED
                yield again if undo and undo.done else Edit.UNDONE, number

    def _silent(
        self,
        progress: Progress,
        before: Statuses,
        after: Statuses,
        sent: Sequence[str],
        by: MessageType | None,
        skipped: str | None,
    ) -> Iterator[tuple[Edit, int]]:
        """Steps that are done, or undone, without a message: because there was none to send."""
        for number, step in enumerate(self.steps):
            became = after[number] if after[number] is not before[number] else None
            undo = step.reverse
            if became is StepStatus.DONE and step.name not in sent and by not in step.done:
                if not _sends(step, progress):
                    yield Edit.HAPPENED, number
            elif became is StepStatus.UNDONE and undo and step.name != skipped:
                answered = undo.name in sent or by in undo.done
                if not answered and not _sends(undo, progress):
                    yield Edit.UNDONE, number

    def _too_early(self, sent: Sequence[str], after: Statuses) -> Iterator[str]:
        for name in sent:
            if name in self._names:
                step = self.steps[self._names[name]]
                for other in step.after:
                    if after[self._names[other]] not in OVER:
                        yield f"{name} is sent before {other} is over"

    def _undone_too_early(
        self, edits: Sequence[tuple[Edit, int]], after: Statuses, forward: bool
    ) -> Iterator[str]:
        pivot = self.definition.pivot
        # Of one that was not waited for, and leaves nothing, the undo of the others takes care.
        late = pivot is not None and pivot.nothing_to_undo and not forward
        for edit, number in edits:
            if edit not in (Edit.UNDO_ASKED, Edit.UNDONE):
                continue
            name = self.steps[number].name
            if pivot is not None and after[self._names[pivot.name]] in OVER and not late:
                yield f"{name} is undone, and {pivot.name} was done, the point of no return"
            for other, step in enumerate(self.steps):
                if after[other] in ON_ITS_WAY:
                    yield f"{name} is undone while {step.name} is on its way"

    def _turned(self, forward: bool, after: Progress, before: Statuses) -> Iterator[str]:
        pivot = self.definition.pivot
        turned = forward and after.direction is Direction.BACK
        if pivot is not None and turned and before[self._names[pivot.name]] in OVER:
            yield f"it turns back, and {pivot.name} was done, the point of no return"

    def _sleeps(self, after: Progress) -> Iterator[str]:
        if after.ended:
            return
        for step in self.steps:
            due = after.step(step.name).due
            if due is not None and (after.timer is None or after.timer.at > max(due, _NOW)):
                yield f"nothing wakes it when {step.name} is due"

    def _place(self, progress: Progress) -> Place:
        state = progress.state.model_dump_json(round_trip=True)
        key = (state, *_shape(progress, self.steps))
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self.places)
            kept = self._kept(progress, state)
            statuses = tuple(progress.step(step.name).status for step in self.steps)
            self.places.append(Place(number, kept, statuses))
        return self.places[number]

    def _kept(self, progress: Progress, state: str) -> Progress:
        """As it comes back from the table."""
        places = _ranks(progress)
        steps = {
            name: replace(step, place=places[step.place]) for name, step in progress.steps.items()
        }
        known = self.definition.cls.model_validate_json(state)
        return replace(progress, state=known, steps=steps, turn=1)


def copied(definition: Definition, attempts: int) -> Definition:
    """The same saga, in which nothing is sent more often than that."""
    steps = {name: _copied(step, attempts) for name, step in definition.steps.items()}
    answers: dict[MessageType, tuple[Step, Undo | None]] = {
        cls: (steps[step.name], steps[step.name].reverse if undo else None)
        for cls, (step, undo) in definition.answers.items()
    }
    pivot = definition.pivot and steps[definition.pivot.name]
    return replace(definition, steps=steps, answers=answers, pivot=pivot)


def _copied(step: Step, attempts: int) -> Step:
    undo = step.reverse
    if undo is not None:
        undo = replace(undo, retries=_fewer(undo.retries, attempts))
    return replace(step, retries=_fewer(step.retries, attempts), reverse=undo)


def _fewer(retries: Retries, attempts: int) -> Retries:
    return replace(retries, attempts=min(retries.attempts, attempts))


def _timed(progress: Progress, due: Collection[str], timer: datetime) -> Progress:
    """The same place at a moment at which only these are due."""
    steps = {
        name: step if step.due is None else replace(step, due=_PAST if name in due else _LATER)
        for name, step in progress.steps.items()
    }
    deadline = progress.deadline and (_PAST if _DEADLINE in due else _LATER)
    turn = progress.turn
    set_timer = progress.timer and Timer(turn, timer, False)
    return replace(progress, steps=steps, deadline=deadline, timer=set_timer)


def _shape(progress: Progress, steps: Sequence[Step]) -> Iterator[object]:
    """What tells one place from another, beside the state."""
    ranks = _ranks(progress)
    yield progress.direction is Direction.FORWARD, progress.ended, progress.stuck
    yield progress.timer is None
    for step in steps:
        now = progress.step(step.name)
        yield now.status, now.attempt, now.due is None, ranks[now.place], now.unanswered


def _ranks(progress: Progress) -> Mapping[int, int]:
    places = sorted({0, *(step.place for step in progress.steps.values())})
    return {place: rank for rank, place in enumerate(places)}


def _over(name: str) -> str:
    return "the deadline passes" if name == _DEADLINE else f"the time is over for {name}"


def _placed(before: Statuses, after: Statuses) -> Iterator[tuple[Edit, int]]:
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if new in _HAPPENED and old not in _HAPPENED:
            yield Edit.PLACED, number
        elif old in _HAPPENED and new not in _HAPPENED and new not in _UNDONE:
            yield Edit.DISPLACED, number


def _sends(step: Step | Undo, progress: Progress) -> bool:
    """Whether it would have had something to send."""
    answer: Any = step.function(progress.state.model_copy(deep=True))
    return bool(answer)


def _said(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'it says nothing'}"
