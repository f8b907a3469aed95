"""All that can become of a saga: every order of answers, failures, timeouts and duplicates.

    found = explore(Checkout)
    assert not found.problems

The walk goes breadth first through the pure machine, so the path to a problem is a shortest one.
What it goes through:

    participants  take a command when they want, or never; choose any answer; do a step once, and
                  not after its undo; accept the undo of what never happened; may refuse an undo
    answers       come when they want, in any order, also after a timeout or after the end, and
                  then again as often as they want
    timers        are over at any moment, one after the other in any order, or all at once; one that
                  was set before may come too
    beside        the start message comes again; events for free-form handlers come at any time; an
                  operator compensates at any time, and resumes or skips what is stuck, once

What it does not: a command that sends itself more than `attempts` times, more than two events that
each add to the state, and messages with other contents than those of the examples.

What has to be so:

    ends          when nothing can come any more the saga is completed, compensated or stuck
    completed     every step has happened that was needed, and none is undone
    compensated   what happened and can be undone is undone; the point of no return never happened
    order         a step is sent after those it stands behind; undone is the last one first, when
                  nothing is on its way, nothing twice, and nothing after the point of no return
    time          what is due has a timer
    no surprise   no message makes the saga's own code raise
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from headrace.events import Message
from headrace.saga.branches import with_branches
from headrace.saga.definition import Definition, Saga, definition_of
from headrace.saga.examples import Examples, examples_of
from headrace.saga.outline import Outcome, Outline, Place, copied
from headrace.saga.participants import DELIVERED, PENDING, Participants, Surroundings
from headrace.saga.progress import Status, StepStatus

LIMIT: Final = 500_000
"""States after which a walk is cut."""

ATTEMPTS: Final = 2
"""How often anything is sent: with the second, it has been sent again, and is exhausted."""

_OFTEN: Final = 1000
_DELIVERED: Final = bytes((DELIVERED,))
_ENDS: Final = (Status.COMPLETED, Status.COMPENSATED, Status.STUCK)

Told: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must not be. `path` leads there, by one of the shortest ways: sentences of
    what came and what that changed. `states` counts where else the same was found."""

    what: str
    path: tuple[str, ...]
    states: int = 1

    def __str__(self) -> str:
        lines = (f"  {number:>2}. {each}" for number, each in enumerate(self.path, start=1))
        return "\n".join([self.what, *lines])


@dataclass(frozen=True, slots=True)
class Exploration:
    """What a walk found. `transitions` counts all that was tried, also what changed nothing;
    `ends` how often a saga was found over, or stuck; `notes` what the examples never led to."""

    states: int
    transitions: int
    problems: tuple[Problem, ...]
    ends: dict[Status, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        ends = ", ".join(f"{status} in {number}" for status, number in self.ends.items())
        problems = f"{len(self.problems)} problem{'s'[: len(self.problems) != 1]}"
        return (
            f"{self.states} states, {self.transitions} transitions, {problems}; "
            f"{ends or 'it never ends'}"
        )


def explore(
    saga: type[Saga] | Definition,
    *,
    starts: Iterable[Message] | None = None,
    replies: Iterable[Message] | None = None,
    limit: int = LIMIT,
    attempts: int = ATTEMPTS,
    progress: Told | None = None,
) -> Exploration:
    """Walk through all that can become of a saga, up to so many states.

    `starts` are messages that begin it, and `replies` those that come later: several of one type
    are branches that are all walked. Of other types examples are taken from `examples()` of the
    class, or made; see `headrace.saga.examples`. `progress` is told now and then how many states
    are found, and how many of them wait. Raises `DefinitionError` if no example can be made.
    """
    definition = copied(definition_of(saga), attempts)
    examples = with_branches(definition, examples_of(definition, starts, replies))
    return _Walk(definition, examples, limit, progress).walk()


@dataclass(slots=True)
class _Found:
    """The first place where something is wrong, and how many there are."""

    state: int
    then: tuple[str, ...]
    states: int = 0


class _Walk:
    """One walk. A state is a place of the saga with what is around it, known by its number."""

    def __init__(
        self, definition: Definition, examples: Examples, limit: int, progress: Told | None
    ) -> None:
        self._definition = definition
        self._starts = examples.starts
        self._limit = limit
        self._progress = progress
        free = [message for cls in definition.free for message in examples.replies[cls]]
        self._around = Participants(definition, examples.replies, len(free))
        self._saga = Outline(definition, self._around.replies, examples.starts, free)
        self._numbers: dict[tuple[int, Surroundings], int] = {}
        self._states: list[tuple[int, Surroundings]] = []
        self._came_from: list[int] = []
        self._came_by: list[str | Outcome] = []
        self._rests_at: list[int] = []
        self._transitions = 0
        self._cut = False
        self._found: dict[str, _Found] = {}
        self._ends: Counter[Status] = Counter()

    def walk(self) -> Exploration:
        nobody = self._around.nobody
        for start in self._starts:
            self._saga.begin(start)
        self._saga.look_ahead()
        for start in self._starts:
            self._reach(-1, self._saga.begin(start), nobody)
        number = 0
        while number < len(self._states):
            self._leave(number)
            number += 1
            if self._progress is not None and number % _OFTEN == 0:
                self._progress(len(self._states), len(self._states) - number)
        self._look_for_circles()
        return self._report()

    # --- walking ---

    def _leave(self, number: int) -> None:
        """Go everywhere that can be reached from here in one step."""
        at, around = self._states[number]
        place = self._saga.places[at]
        for what, after in self._around.taken(around):
            self._transitions += 1
            self._arrive(number, what, at, after)
        pending = False
        for reply, slot in enumerate(self._around.slots):
            if around[slot]:
                pending = pending or around[slot] == PENDING
                self._deliver(number, place, reply, slot, around)
        for outcome in self._saga.sudden(place):
            if self._around.allows(outcome, around):
                self._reach(number, outcome, around)
        self._transitions += place.idle
        self._rest(number, place, around, pending=pending)

    def _deliver(
        self, number: int, place: Place, reply: int, slot: int, around: Surroundings
    ) -> None:
        outcome = self._saga.replied(place, reply)
        if around[slot] == PENDING:
            around = around[:slot] + _DELIVERED + around[slot + 1 :]
        elif outcome.is_nothing(place.number):
            self._transitions += 1
            return
        self._reach(number, outcome, around)

    def _reach(self, number: int, outcome: Outcome, around: Surroundings) -> int:
        """Go where an outcome leads; the number of that state, or -1 if the walk is cut."""
        self._transitions += 1
        statuses = self._saga.places[outcome.to].statuses
        after, wrong = self._around.follow(outcome, statuses, around)
        for what in wrong:
            self._note(what, number, (outcome.sentence,))
        return self._arrive(number, outcome, outcome.to, after)

    def _arrive(self, number: int, by: str | Outcome, at: int, around: Surroundings) -> int:
        state = (at, around)
        known = self._numbers.get(state)
        if known is not None:
            return known
        same = (at, self._around.noticed(around, self._saga.places[at].alive))
        known = self._numbers.get(same)
        if known is None:
            if len(self._states) >= self._limit:
                self._cut = True
                return -1
            known = self._numbers[same] = len(self._states)
            self._add(same, number, by)
        self._numbers[state] = known
        return known

    def _add(self, state: tuple[int, Surroundings], number: int, by: str | Outcome) -> None:
        self._states.append(state)
        self._came_from.append(number)
        self._came_by.append(by)
        self._rests_at.append(-1)

    # --- judging ---

    def _rest(self, number: int, place: Place, around: Surroundings, *, pending: bool) -> None:
        """What is to be said of a place to which nothing is on its way any more."""
        status = place.progress.status
        if pending:
            return
        if status not in _ENDS:
            self._rests_at[number] = self._woken(number, place, around)
            return
        self._ends[status] += 1
        if status is not Status.STUCK:
            compensated = status is Status.COMPENSATED
            for what in self._around.wrong_at_end(place.statuses, around, compensated=compensated):
                self._note(what, number, ())

    def _woken(self, number: int, place: Place, around: Surroundings) -> int:
        """Where time alone leads to from here."""
        woken = place.woken
        if woken is None:
            return number
        after, _ = self._around.follow(woken, self._saga.places[woken.to].statuses, around)
        return self._numbers.get((woken.to, after), -1)

    def _look_for_circles(self) -> None:
        """States from which time alone leads back to them: such a saga does not end."""
        ends: set[int] = set()
        for start in range(len(self._states)):
            chain: dict[int, None] = {}
            number = start
            while number >= 0 and number not in ends and number not in chain:
                chain[number] = None
                number = self._rests_at[number]
            if number in chain:
                self._does_not_end(number)
            ends.update(chain)

    def _does_not_end(self, number: int) -> None:
        at, around = self._states[number]
        place = self._saga.places[at]
        waits = [
            step.name
            for step, status in zip(self._around.steps, place.statuses, strict=True)
            if status not in _SETTLED
        ]
        left = f"waits for {' and '.join(waits)}" if waits else "waits for nothing"
        what = f"it does not end: it is {place.progress.status}, and {left}"
        self._note(what, number, (self._silence(around),))

    def _silence(self, around: Surroundings) -> str:
        names = self._around.unanswered(around)
        if not names:
            return "nothing more comes, and nothing is sent any more"
        return f"nothing more comes: {' and '.join(names)} is never answered"

    def _note(self, what: str, number: int, then: tuple[str, ...]) -> None:
        found = self._found.setdefault(what, _Found(number, then))
        found.states += 1

    # --- telling ---

    def _report(self) -> Exploration:
        found = [
            Problem(what, (*self._path(first.state), *first.then), first.states)
            for what, first in self._found.items()
        ]
        found.sort(key=lambda problem: len(problem.path))
        if self._cut:
            found.append(Problem(f"the walk was cut at {self._limit} states", ()))
        ends = {status: self._ends[status] for status in _ENDS if self._ends[status]}
        return Exploration(
            states=len(self._states),
            transitions=self._transitions,
            problems=tuple(found),
            ends=ends,
            notes=tuple(self._unseen()),
        )

    def _path(self, number: int) -> list[str]:
        path: list[str] = []
        while number >= 0:
            by = self._came_by[number]
            path.append(by if isinstance(by, str) else by.sentence)
            number = self._came_from[number]
        return path[::-1]

    def _unseen(self) -> Iterator[str]:
        for number, step in enumerate(self._around.steps):
            seen = {place.statuses[number] for place in self._saga.places}
            if step.conditional and StepStatus.SKIPPED not in seen:
                yield f"{step.name} was needed in all examples: give one in which it is not"
            if seen <= {StepStatus.WAITING, StepStatus.SKIPPED}:
                yield f"{step.name} was never sent: give examples that lead there"


_SETTLED: Final = frozenset(
    {
        StepStatus.DONE,
        StepStatus.SKIPPED,
        StepStatus.FAILED,
        StepStatus.UNDONE,
        StepStatus.WAITING,
    }
)
