"""The transitions of a saga: pure functions of how far it is, what came, and when.

    begin(definition, message, now)                 -> Transition
    answered(definition, progress, message, now)    -> Transition
    woken(definition, progress, turn, now)          -> Transition
    intervened(definition, progress, how, now)      -> Transition

A transition says how far the saga is then, what is to be sent, and when it wants to be woken.
Nothing here waits, writes or asks for the time; `headrace.saga.handling` commits what comes out,
and `headrace.saga.explore` walks through all that can.

    forward      every step whose predecessors are over is sent
    it fails     once nothing is on its way any more, what was done is undone, the last one first,
                 each when the one before is undone; so is what nobody knows of
    pivot done   nothing is undone any more; what is left is sent until it succeeds
    exhausted    the saga is stuck: nothing is dropped, and nothing is guessed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from headrace.errors import DefinitionError
from headrace.events import Message
from headrace.limits import SQS_MAX_DELAY
from headrace.saga.definition import Abort, Definition, Retries, Saga, Step, TimedOut, Undo
from headrace.saga.progress import (
    OVER,
    Direction,
    Progress,
    Status,
    StepProgress,
    StepStatus,
    Timer,
)

_ON_ITS_WAY: Final = frozenset({StepStatus.SENT, StepStatus.PAUSED})
_BEING_UNDONE: Final = frozenset({StepStatus.UNDOING, StepStatus.UNDO_PAUSED})
_TO_UNDO: Final = frozenset({StepStatus.DONE, StepStatus.UNKNOWN})


class Action(StrEnum):
    """What an operator may do with a saga."""

    RESUME = "resume"
    SKIP = "skip-step"
    COMPENSATE = "compensate"


@dataclass(frozen=True, slots=True)
class Transition:
    """What one message did to a saga.

    `changes` are sentences for its history. `sent` are messages with the step that wanted them.
    `disarm` is the turn of a timer that nobody waits for any more. `became` is the status that it
    came to, if that is another than before. Nothing is to be written, but what is told, if the
    `progress` is the one from before.
    """

    progress: Progress
    changes: Sequence[str]
    sent: Sequence[tuple[str, Message]] = ()
    arm: Timer | None = None
    disarm: int | None = None
    became: Status | None = None


def begin(definition: Definition, message: Message, now: datetime) -> Transition:
    """The first transition, to the first steps."""
    begun: Any = definition.cls
    state = begun.begin(message)
    if not isinstance(state, definition.cls):
        raise DefinitionError(
            f"{definition.cls.__name__}.begin returned a {type(state).__name__}: return the state, "
            f"a {definition.cls.__name__}."
        )
    deadline = None if definition.deadline is None else now + definition.deadline
    turn = _Turn(definition, Progress(state=state, begun=now, deadline=deadline), now)
    turn.tell(f"begun with {type(message).__name__}")
    return turn.end(first=True)


def answered(
    definition: Definition, progress: Progress, message: Message, now: datetime
) -> Transition:
    """What becomes of an answer, or of an event for a free-form handler."""
    turn, name = _Turn(definition, progress, now), type(message).__name__
    if type(message) in definition.starts_on:
        return turn.ignored(f"{name} came again, and is ignored: it began before")
    mapped = definition.answers.get(type(message))
    if mapped is None:
        return turn.free(message)
    step, undo = mapped
    if undo is not None:
        return turn.undo_answered(step, undo, message)
    if type(message) in step.done:
        return turn.done(step, message)
    return turn.refused(step, message, for_good=type(message) in step.failed)


def woken(definition: Definition, progress: Progress, timer: int, now: datetime) -> Transition:
    """What is due at this moment. A timer that is not the one that was set last does nothing."""
    turn = _Turn(definition, progress, now)
    if progress.timer is None or progress.timer.turn != timer:
        return turn.ignored("")
    turn.timer = None
    turn.wake()
    return turn.end()


def intervened(
    definition: Definition,
    progress: Progress,
    action: Action,
    by: str,
    why: str,
    now: datetime,
    step: str | None = None,
) -> Transition:
    """What an operator wants, of the `step` that they have seen it stuck at. What cannot be had is
    said in the history, and changes nothing."""
    turn = _Turn(definition, progress, now)
    said = f"{action.value} by {by}" + (f": {why}" if why else "")
    refusal = turn.refusal(action)
    if refusal is None and step is not None and progress.stuck not in (None, step):
        refusal = f"it is stuck at {progress.stuck} by now, and not at {step}"
    if refusal is not None:
        return turn.ignored(f"{said}, and is refused: {refusal}")
    turn.tell(said)
    turn.intervene(action, said)
    return turn.end()


class _Turn:
    """One transition in the making."""

    def __init__(self, definition: Definition, before: Progress, now: datetime) -> None:
        self.definition = definition
        self.now = now
        self.timer = before.timer
        self._before = before
        self._state = before.state.model_copy(deep=True)
        self._steps = dict(before.steps)
        self._direction = before.direction
        self._ended = before.ended
        self._stuck = before.stuck
        self._trouble = before.trouble
        self._reason = before.reason
        self._sent: list[tuple[str, Message]] = []
        self._changes: list[str] = []

    # --- what came ---

    def done(self, step: Step, message: Message) -> Transition:
        now = self._at(step)
        name = type(message).__name__
        late_done = self._direction is Direction.BACK and now.status is StepStatus.FAILED
        if not (now.status in _ON_ITS_WAY or late_done or now.status is StepStatus.UNKNOWN):
            return self.ignored(f"{name} is ignored: {step.name} is {now.status}")
        self._take(step, message)
        # What was given up keeps its place: it is undone where it was to be undone.
        place = now.place or self._next_place()
        self._set(step, StepStatus.DONE, place=place, attempt=now.attempt)
        self.tell(f"{step.name} done by {name}")
        waited_for = now.status in _ON_ITS_WAY or self._stuck == step.name
        self._unstick(step)
        if self._ended and self._direction is Direction.BACK and self._is_to_undo(step):
            self.tell("it was over, and goes on, to undo what is done after all")
            self._ended = False
        if self._direction is Direction.BACK and step.pivot and waited_for:
            # Nothing was undone yet, as this was waited for.
            self._direction, self._reason = Direction.FORWARD, None
            self.tell(f"it goes on: {step.name} is done, and there is no way back")
        return self.end()

    def refused(self, step: Step, message: Message, *, for_good: bool) -> Transition:
        now, name = self._at(step), type(message).__name__
        unanswered = now.status is StepStatus.UNKNOWN
        if unanswered and for_good and now.attempt == 1:
            self._take(step, message)
            self._set(step, StepStatus.FAILED)
            self.tell(f"{step.name} failed by {name}, late: there is nothing to undo")
            self._unstick(step)
            return self.end()
        if now.status not in _ON_ITS_WAY:
            return self.ignored(f"{name} is ignored: {step.name} is {now.status}")
        if now.status is StepStatus.PAUSED and not for_good:
            return self.ignored(f"{name} is ignored: {step.name} is sent again anyway")
        self._take(step, message)
        if not for_good or self._must_go_on(step):
            self._again(step, name)
        else:
            self._give_up(step, f"{step.name} failed by {name}", happened=now.unanswered)
        return self.end()

    def undo_answered(self, step: Step, undo: Undo, message: Message) -> Transition:
        now, name = self._at(step), type(message).__name__
        if now.status not in _BEING_UNDONE:
            return self.ignored(f"{name} is ignored: {step.name} is {now.status}")
        if type(message) not in undo.done and now.status is StepStatus.UNDO_PAUSED:
            return self.ignored(f"{name} is ignored: {undo.name} is sent again anyway")
        self._take(step, message)
        if type(message) in undo.done:
            self._set(step, StepStatus.UNDONE, place=now.place)
            self.tell(f"{step.name} undone by {name}")
            self._unstick(step)
        else:
            self._undo_again(step, undo, name)
        return self.end()

    def free(self, message: Message) -> Transition:
        handler, name = self.definition.free.get(type(message)), type(message).__name__
        if handler is None:
            version = self.definition.version
            return self.ignored(f"{name} is ignored: version {version} knows nothing of it")
        if self._ended:
            return self.ignored(f"{name} is ignored: it is over")
        answer = handler.function(self._state, message)
        wanted = answer if isinstance(answer, (list, tuple)) else [answer]
        self.tell(f"{handler.name} because of {name}")
        for each in wanted:
            if isinstance(each, Abort):
                self._abort(each.reason)
            elif each is not None:
                self._send(handler.name, each)
        return self.end()

    def wake(self) -> None:
        deadline = self._before.deadline
        if deadline is not None and deadline <= self.now and self._has_a_deadline():
            # First, as nothing is to be sent again only to be undone at once.
            self._expire()
        for step in self.definition.steps.values():
            now = self._at(step)
            if now.due is None or now.due > self.now:
                continue
            if now.status is StepStatus.SENT:
                self._not_answered(step)
            elif now.status is StepStatus.PAUSED:
                self._send_step(step, now.attempt + 1)
            elif now.status is StepStatus.UNDOING and step.reverse:
                self._undo_again(step, step.reverse, "no answer")
            elif now.status is StepStatus.UNDO_PAUSED and step.reverse:
                self._send_undo(step, step.reverse, now.attempt + 1)

    def refusal(self, action: Action) -> str | None:
        """Why an operator cannot have this; `None` if they can."""
        if self._ended:
            return "it is over"
        if action is Action.COMPENSATE:
            if self._direction is Direction.BACK:
                return "it is being undone already"
            pivot = self.definition.pivot
            if pivot is not None and not self._can_turn_back():
                return f"{pivot.name} is done, and there is no way back"
            return None
        if self._stuck:
            return None
        return None if action is Action.RESUME and self._is_overdue() else "it is not stuck"

    def _is_overdue(self) -> bool:
        """Whether something is due, and the timer for it did not come."""
        return any(due <= self.now for due in self._dues(self._before))

    def intervene(self, action: Action, said: str) -> None:
        if action is Action.COMPENSATE:
            self._turn_back(said)
            return
        if self._stuck is None:
            self.tell("its timer is overdue")
            self.timer = None
            self.wake()
            return
        step = self.definition.steps[self._stuck]
        self._stuck = None
        if action is Action.SKIP:
            forward = self._direction is Direction.FORWARD
            status = StepStatus.SKIPPED if forward else StepStatus.UNDONE
            self._set(step, status, place=self._at(step).place)
            self.tell(f"{step.name} counts as {status}")
        elif self._direction is Direction.FORWARD:
            self._send_step(step, 1)
        elif step.reverse is not None:
            self._send_undo(step, step.reverse, 1)
        else:
            self._stuck = step.name
            self.tell(f"nothing undoes {step.name}: see what became of it, and skip it")

    # --- forward ---

    def _advance(self) -> None:
        """Send every step that nothing stands before."""
        progress = True
        while progress:
            progress = False
            for step in self.definition.steps.values():
                waits = self._at(step).status is StepStatus.WAITING
                if waits and all(self._status(name) in OVER for name in step.after):
                    self._send_step(step, 1)
                    progress = True
        if all(self._status(name) in OVER for name in self.definition.steps):
            self._ended = True

    def _send_step(self, step: Step, attempt: int) -> None:
        messages = _messages(step.function(self._state))
        for message in messages:
            self._send(step.name, message)
        if not messages and step.conditional:
            self._set(step, StepStatus.SKIPPED)
            self.tell(f"{step.name} is not needed")
        elif not messages or not step.waits:
            self._set(step, StepStatus.DONE, place=self._next_place())
            self.tell(f"{step.name} done")
        else:
            due = None if step.timeout is None else self.now + step.timeout
            before = self._at(step)
            self._steps[step.name] = replace(
                before, status=StepStatus.SENT, attempt=attempt, due=due, exhausted=False
            )
            self.tell(f"{step.name} sent{_nth(attempt)}")

    def _not_answered(self, step: Step) -> None:
        self._steps[step.name] = replace(self._at(step), unanswered=True)
        take = step.takes.get(TimedOut)
        if take is not None:
            take(self._state, TimedOut())
        self._again(step, "no answer in time")

    def _again(self, step: Step, because: str) -> None:
        """Send it once more after a pause, or give it up."""
        now = self._at(step)
        if self._direction is Direction.BACK:
            # It was waited for only to know what is to be undone.
            self._give_up(step, f"{step.name}: {because}", happened=now.unanswered)
        elif now.attempt < step.retries.attempts:
            self._pause(step, StepStatus.PAUSED, step.retries)
            self.tell(f"{step.name} is to be sent again: {because}")
        elif self._must_go_on(step):
            self._get_stuck(step, f"{step.name} is exhausted: {because}")
        else:
            self._give_up(step, f"{step.name}: {because}", happened=now.unanswered)

    def _give_up(self, step: Step, reason: str, *, happened: bool) -> None:
        if happened:
            self._leave_unknown(step)
        else:
            self._set(step, StepStatus.FAILED, attempt=self._at(step).attempt)
        self.tell(f"{step.name} {self._status(step.name)}: {reason}")
        if self._direction is Direction.FORWARD:
            self._turn_back(reason)

    def _leave_unknown(self, step: Step) -> None:
        now = self._at(step)
        self._set(step, StepStatus.UNKNOWN, place=self._next_place(), attempt=now.attempt)

    # --- back ---

    def _abort(self, reason: str) -> None:
        if self._direction is Direction.BACK:
            self.tell(f"it is being undone already: {reason}")
        elif not self._can_turn_back():
            self.tell(f"it is too late to undo it: {reason}")
        else:
            self._turn_back(reason)

    def _turn_back(self, reason: str) -> None:
        self._direction, self._reason, self._stuck = Direction.BACK, reason, None
        self.tell(f"it is undone: {reason}")
        for step in self.definition.steps.values():
            now = self._at(step)
            if now.status is StepStatus.PAUSED:
                if now.unanswered:
                    self._leave_unknown(step)
                else:
                    self._set(step, StepStatus.FAILED, attempt=now.attempt)

    def _undo_next(self) -> None:
        """Undo what was done last, once nothing is on its way any more."""
        while not self._stuck:
            statuses = {self._status(name) for name in self.definition.steps}
            if statuses & (_ON_ITS_WAY | _BEING_UNDONE):
                return
            left = [s for s in self.definition.steps.values() if self._is_to_undo(s)]
            if not left:
                self._ended = True
                return
            step = max(left, key=lambda s: self._at(s).place)
            if step.reverse is None:
                self._get_stuck(step, self._why_not_undone(step))
                return
            self._send_undo(step, step.reverse, 1)

    def _is_to_undo(self, step: Step) -> bool:
        status = self._status(step.name)
        if step.reverse is None:
            after_all = status is StepStatus.DONE and step.pivot
            return (after_all or status is StepStatus.UNKNOWN) and not step.nothing_to_undo
        return status in _TO_UNDO

    def _why_not_undone(self, step: Step) -> str:
        if self._status(step.name) is StepStatus.UNKNOWN:
            return f"whether {step.name} happened is not known"
        return f"{step.name} is done after all, the point of no return, and the rest is undone"

    def _send_undo(self, step: Step, undo: Undo, attempt: int) -> None:
        now = self._at(step)
        messages = _messages(undo.function(self._state))
        for message in messages:
            self._send(undo.name, message)
        if not messages or not undo.done:
            self._set(step, StepStatus.UNDONE, place=now.place)
            self.tell(f"{step.name} undone")
            return
        due = None if undo.timeout is None else self.now + undo.timeout
        self._set(step, StepStatus.UNDOING, place=now.place, attempt=attempt, due=due)
        self.tell(f"{undo.name} sent{_nth(attempt)}")

    def _undo_again(self, step: Step, undo: Undo, because: str) -> None:
        if self._at(step).attempt < undo.retries.attempts:
            self._pause(step, StepStatus.UNDO_PAUSED, undo.retries)
            self.tell(f"{undo.name} is to be sent again: {because}")
        else:
            self._get_stuck(step, f"{undo.name} is exhausted: {because}")

    def _has_a_deadline(self) -> bool:
        """Whether the deadline means anything: it can be undone, or is waited for before that."""
        waits = any(step.status is StepStatus.SENT for step in self._steps.values())
        return self._can_turn_back() or (self._direction is Direction.BACK and waits)

    def _expire(self) -> None:
        if self._direction is Direction.FORWARD:
            self._turn_back("its deadline has passed")
        for step in self.definition.steps.values():
            if self._at(step).status is StepStatus.SENT:
                self._leave_unknown(step)
                self.tell(f"{step.name} is not waited for any more")

    # --- both ---

    def end(self, *, first: bool = False) -> Transition:
        """Go on as far as possible, and set the timer for what is next."""
        if not self._ended:
            if self._direction is Direction.FORWARD:
                self._advance()
            else:
                self._undo_next()
            self._see_who_is_exhausted()
        before = self._before
        after = replace(
            before,
            state=self._state,
            steps=self._steps,
            direction=self._direction,
            ended=self._ended,
            stuck=self._stuck,
            trouble=self._trouble if self._stuck else None,
            reason=self._reason,
            turn=before.turn + 1,
        )
        arm, disarm = self._timing(after)
        after = replace(after, timer=self.timer)
        became = after.status if first or after.status is not before.status else None
        if after.ended:
            self.tell(f"{after.status}" + (f": {after.reason}" if after.reason else ""))
        return Transition(after, tuple(self._changes), tuple(self._sent), arm, disarm, became)

    def ignored(self, why: str) -> Transition:
        return Transition(self._before, (why,) if why else ())

    def tell(self, change: str) -> None:
        self._changes.append(change)

    def _timing(self, after: Progress) -> tuple[Timer | None, int | None]:
        """One timer for all that is due, the earliest. One that comes too early looks again, which
        costs less than a message for each step; a schedule can be called off, so it is."""
        wanted = min(self._dues(after), default=None)
        set_before = self.timer
        if set_before is not None and wanted is not None:
            right = set_before.at == wanted or (set_before.at < wanted and not set_before.scheduled)
            # One whose time is over is on its way, or a dead letter: who would know?
            if right and set_before.at > self.now:
                return None, None
        called_off = set_before.turn if set_before and set_before.scheduled else None
        self.timer = None
        if wanted is not None:
            scheduled = wanted - self.now > SQS_MAX_DELAY
            self.timer = Timer(after.turn, wanted, scheduled)
        return self.timer, called_off

    def _dues(self, after: Progress) -> Iterator[datetime]:
        if after.ended:
            return
        for step in after.steps.values():
            if step.due is not None:
                yield step.due
        if after.deadline is not None and self._has_a_deadline():
            yield after.deadline

    def _can_turn_back(self) -> bool:
        pivot = self.definition.pivot
        past = pivot is not None and self._status(pivot.name) in OVER
        return self._direction is Direction.FORWARD and not self._ended and not past

    def _must_go_on(self, step: Step) -> bool:
        return step.name in self.definition.after_pivot

    def _take(self, step: Step, message: Message) -> None:
        take: Callable[[Saga, Message], object] | None = step.takes.get(type(message))
        if take is not None:
            take(self._state, message)

    def _send(self, name: str, message: Message) -> None:
        self._sent.append((name, message))

    def _pause(self, step: Step, status: StepStatus, retries: Retries) -> None:
        now = self._at(step)
        key = getattr(self._state, self.definition.key)
        pause = retries.pause(now.attempt, f"{key} {step.name}")
        self._steps[step.name] = replace(now, status=status, due=self.now + pause)

    def _get_stuck(self, step: Step, reason: str) -> None:
        self._stuck, self._trouble = step.name, reason
        self._steps[step.name] = replace(self._at(step), due=None, exhausted=True)
        self.tell(f"stuck: {reason}")

    def _see_who_is_exhausted(self) -> None:
        """Several steps may be, side by side: when one is not stuck any more, the next one is."""
        for step in self.definition.steps.values():
            now = self._at(step)
            if now.exhausted and self._stuck is None:
                self._get_stuck(step, f"{step.name} is exhausted")

    def _unstick(self, step: Step) -> None:
        if self._stuck == step.name:
            self._stuck = None

    def _at(self, step: Step) -> StepProgress:
        return self._steps.get(step.name, StepProgress())

    def _status(self, name: str) -> StepStatus:
        return self._steps.get(name, StepProgress()).status

    def _set(
        self,
        step: Step,
        status: StepStatus,
        *,
        place: int = 0,
        attempt: int = 0,
        due: datetime | None = None,
    ) -> None:
        self._steps[step.name] = StepProgress(status, attempt, due, place)

    def _next_place(self) -> int:
        return 1 + max((step.place for step in self._steps.values()), default=0)


def _messages(answer: Any) -> list[Message]:
    if answer is None:
        return []
    return list(answer) if isinstance(answer, (list, tuple)) else [answer]


def _nth(attempt: int) -> str:
    return "" if attempt == 1 else f", attempt {attempt}"
