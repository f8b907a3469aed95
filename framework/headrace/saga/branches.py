"""Which messages make a saga take another way than those before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeAlias

from headrace.events import Message, MessageType
from headrace.saga import machine
from headrace.saga.definition import Definition, Step, Undo
from headrace.saga.examples import Examples, variants
from headrace.saga.machine import Action, Transition

Way: TypeAlias = tuple[object, ...]
"""What was sent, by type, and how each step ended."""

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_VARIANTS: Final = 60
_LONGEST: Final = 1000
"""Messages on one way: a saga that goes round in circles has no end of them."""


def with_branches(definition: Definition, examples: Examples) -> Examples:
    """More examples of the types of which nobody gave any: those with which a saga sends
    something else, or needs a step that it did not need, or the other way round."""
    key = definition.key_of(examples.starts[0])
    starts, replies = list(examples.starts), dict(examples.replies)
    known: set[Way] = set()
    for start in starts:
        known |= _ways(definition, start, examples)
        for cls in definition.free:
            known |= _ways(definition, start, examples, replies[cls][0])
    for cls in (cls for cls in definition.takes if cls in examples.made):
        for other in islice(variants(cls, definition, key), _VARIANTS):
            begins = cls in definition.starts_on
            if begins:
                found = _ways(definition, other, examples)
            else:
                found = {w for start in starts for w in _ways(definition, start, examples, other)}
            if found <= known:
                continue
            known |= found
            if begins:
                starts.append(other)
            else:
                replies[cls] = (*replies[cls], other)
    return replace(examples, starts=tuple(starts), replies=replies)


def _ways(
    definition: Definition, start: Message, examples: Examples, other: Message | None = None
) -> set[Way]:
    """How it goes if all succeeds, and if one step does not, with another message of one type;
    none where the state does not take such messages."""
    replies = {cls: found[0] for cls, found in examples.replies.items()}
    if other is not None:
        replies[type(other)] = other
    ways: set[Way] = set()
    for failing in (None, *definition.steps):
        try:
            ways.add(_way(definition, start, replies, other, failing))
        except Exception:
            # The walk meets what is wrong with given messages; these are only made.
            break
    return ways


def _way(
    definition: Definition,
    start: Message,
    replies: Mapping[MessageType, Message],
    other: Message | None,
    failing: str | None,
) -> Way:
    undos = {s.reverse.name: s.reverse for s in definition.steps.values() if s.reverse}
    transition = machine.begin(definition, start, _NOW)
    way: list[object] = []
    waiting = list(transition.sent)
    if other is not None and type(other) in definition.free:
        transition = machine.answered(definition, transition.progress, other, _NOW)
        waiting += transition.sent
    while waiting and len(way) < _LONGEST:
        name, message = waiting.pop(0)
        way.append(type(message))
        owner = definition.steps.get(name) or undos.get(name)
        if owner is None or not (owner.done or name == failing):
            continue
        transition = _answered(definition, transition, owner, replies, other, name == failing)
        waiting += transition.sent
    statuses = (step.status for step in transition.progress.steps.values())
    return (*way, *zip(transition.progress.steps, statuses, strict=True))


def _answered(
    definition: Definition,
    before: Transition,
    owner: Step | Undo,
    replies: Mapping[MessageType, Message],
    other: Message | None,
    fails: bool,
) -> Transition:
    answers = owner.failed if fails else owner.done
    if not answers:
        return machine.intervened(
            definition, before.progress, Action.COMPENSATE, "somebody", "", _NOW
        )
    answer = next((cls for cls in answers if cls is type(other)), answers[0])
    return machine.answered(definition, before.progress, replies[answer], _NOW)
