"""Sending letters back, carefully: one of each group first, then more and more at a time.

For each letter, in this order:

    its inbox records say that it is done    it is deleted: to send it would repeat nothing
    a copy is sent to its queue
    the copy stands                          the letter is deleted
    its fate is awaited                      the next step begins when all of this one are done

    killed before the delete    the letter comes back, and so does its message: the inbox knows it
    killed after it             the message is in its queue, and handled like any other

So nothing is lost wherever a run ends, and another run goes on. The first letter that fails again
ends the run; what it had not sent by then stays where it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from headrace.dlq.copies import copy_of, send_back
from headrace.dlq.edits import Edits, edited, refuse_several
from headrace.dlq.fates import LIMIT, PATIENCE, Fate, Fates, Verdict
from headrace.dlq.groups import Group, Selection, grouped, heads
from headrace.dlq.holding import MOST as HELD
from headrace.dlq.holding import VISIBILITY, Holding, holding
from headrace.dlq.letters import Letter
from headrace.dlq.parked import Parked
from headrace.dlq.reading import Reader
from headrace.dlq.reasons import Logged
from headrace.errors import TooLarge
from headrace.ports import Ports, QueueEntry
from headrace.service import Service
from headrace.topology.model import dead_letter_queue

FIRST: Final = 10
MOST: Final = 500
"""Letters sent back at a time: after the canary, and in the end."""

_AT_ONCE: Final = 500
"""Letters whose records are looked up together."""


def ramp(first: int = FIRST, most: int = MOST) -> Iterator[int]:
    """How many go at a time: one, then `first`, then twice as many each time, up to `most`."""
    yield 1
    while True:
        yield min(first, most)
        first = min(2 * first, most)


@dataclass(slots=True)
class Report:
    """What a run has done. `already` were done before, and only deleted; `assumed` are those whose
    fate cannot be proven; `failed` and `unknown` have ended the run; `unsent` too, which
    SQS did not take. `unfit` stay because they cannot be sent in this way, and `left` because the
    run ended before them. `stuck` says of message groups why what is parked did not go on."""

    done: list[Letter] = field(default_factory=list)
    already: list[Letter] = field(default_factory=list)
    assumed: list[Fate] = field(default_factory=list)
    failed: list[Fate] = field(default_factory=list)
    unknown: list[Fate] = field(default_factory=list)
    unsent: list[tuple[Letter, str]] = field(default_factory=list)
    unfit: list[tuple[Letter, str]] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    left: int = 0

    @property
    def succeeded(self) -> bool:
        return not (self.stopped or self.unfit or self.stuck)

    @property
    def stopped(self) -> bool:
        return bool(self.failed or self.unknown or self.unsent)

    def add(self, fate: Fate) -> None:
        match fate.verdict:
            case Verdict.DONE:
                self.done.append(fate.letter)
            case Verdict.ASSUMED:
                self.assumed.append(fate)
            case Verdict.FAILED:
                self.failed.append(fate)
            case Verdict.UNKNOWN:
                self.unknown.append(fate)


class Watcher:
    """Told what a run does, as it does it. This one says nothing to anybody."""

    def read(self, count: int) -> None:
        """So many letters are held now."""

    def already(self, letters: Sequence[Letter]) -> None:
        """These were done before, and are deleted."""

    def step(self, group: Group, letters: Sequence[Letter], *, canary: bool) -> None:
        """These are sent back now."""

    def settled(self, fate: Fate) -> None:
        """This is known of one of them."""

    def said(self, text: str) -> None:
        """Something else that may be of interest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run is to do: with which letters of the queue behind `source`, changed how, at what
    pace. `run` names it in the notes of what it sends back."""

    source: str
    run: str
    selection: Selection = field(default_factory=Selection)
    edits: Edits = field(default_factory=Edits)
    first: int = FIRST
    most: int = MOST
    patience: timedelta = PATIENCE
    limit: timedelta = LIMIT
    visibility: timedelta = VISIBILITY
    held: int = HELD


@asynccontextmanager
async def redriving(
    service: Service,
    ports: Ports,
    plan: Plan,
    *,
    watcher: Watcher | None = None,
    logs: Mapping[str, Logged] | None = None,
) -> AsyncIterator[Redrive]:
    """A run that holds its letters within this block."""
    watcher = watcher or Watcher()
    async with holding(
        ports.queues,
        dead_letter_queue(plan.source),
        visibility=plan.visibility,
        most=plan.held,
        read=watcher.read,
    ) as held:
        yield Redrive(service, ports, plan, held, watcher, logs)


class Redrive:
    """One run over the letters of one queue."""

    def __init__(
        self,
        service: Service,
        ports: Ports,
        plan: Plan,
        held: Holding,
        watcher: Watcher,
        logs: Mapping[str, Logged] | None = None,
    ) -> None:
        self.report = Report()
        self.seen: list[Letter] = []
        self._service = service
        self._queues = ports.queues
        self._plan = plan
        self.holding = held
        self._watcher = watcher
        self._fifo = plan.source.endswith(".fifo")
        self._reader = Reader(service, plan.source, ports, logs)
        self._parked = Parked(service, plan.source, ports, watcher.said)
        self._fates = Fates(
            self._reader,
            ports.queues,
            held,
            plan.source,
            plan.run,
            patience=plan.patience,
            limit=plan.limit,
            say=watcher.said,
            settled=watcher.settled,
        )
        self._ramps: defaultdict[str, Iterator[int]] = defaultdict(
            lambda: ramp(plan.first, plan.most)
        )
        self._sizes: dict[str, int] = {}
        self._proven: set[str] = set()
        self._passed_over: set[str] = set()
        self._selected: list[Letter] | None = None

    async def selected(self) -> list[Letter]:
        """The letters that are meant, as they will be sent; `seen` are all that were looked at.
        Raises `InvalidEdit` and `CloudError`; nothing is sent before all of them are valid."""
        self.seen = await self._reader.read(await self.holding.fill())
        self._selected = self._meant(self.seen)
        return self._selected

    async def run(self) -> Report:
        """Send them back, step by step. Raises `CloudError`, after which running again goes on."""
        self.report.stuck += await self._parked.sweep()
        while candidates := await self._candidates():
            group = self._in_turn(candidates)
            await self._step(group)
            if self.report.stopped:
                self.report.left = await self._left()
                break
        return self.report

    async def _candidates(self) -> list[Letter]:
        """What can be sent next. Of a standard queue, all that is held and left. Of a FIFO queue,
        the first letter of each message group, found anew: nothing is held between its steps."""
        if self._selected is None or self._fifo:
            self._selected = await self._fresh()
        self._selected = [
            letter
            for letter in self._selected
            if letter.id in self.holding.held and letter.id not in self._passed_over
        ]
        return self._selected

    async def _left(self) -> int:
        """How many are meant and were not sent, as far as they can be seen."""
        if not self._fifo:
            return len(await self._candidates())
        return sum(letter.note.redrive != self._plan.run for letter in await self.selected())

    async def _fresh(self) -> list[Letter]:
        letters = await self._reader.read(await self.holding.fill())
        first = {letter.id for letter in (heads(letters) if self._fifo else letters)}
        return [letter for letter in self._meant(letters) if letter.id in first]

    def _meant(self, letters: Sequence[Letter]) -> list[Letter]:
        meant = [letter for letter in letters if self._plan.selection.takes(letter)]
        refuse_several(self._plan.edits, meant)
        return [edited(self._service, letter, self._plan.edits) for letter in meant]

    def _in_turn(self, candidates: Sequence[Letter]) -> Group:
        """One group after the other, the largest first."""
        groups = grouped(candidates)
        begun = [group for group in groups if group.fingerprint in self._sizes]
        return (begun or groups)[0]

    async def _step(self, group: Group) -> None:
        size = self._size(group)
        chosen = await self._not_done(group.letters, size)
        entries = dict(self._copies(chosen))
        sending = [letter for letter in chosen if letter.id in entries]
        if not sending:
            return
        self._watcher.step(group, sending, canary=group.fingerprint not in self._proven)
        failures = await send_back(self._queues, entries, self._plan.source)
        for letter in sending:
            if letter.id in failures:
                self.report.unsent.append((letter, str(failures[letter.id])))
        sent = [letter for letter in sending if letter.id not in failures]
        # Only now that the copies stand.
        await self.holding.delete([letter.delivery for letter in sent])
        await self._await(group, sent)

    async def _await(self, group: Group, sent: Sequence[Letter]) -> None:
        if self._fifo:
            # What is held would hide what comes back behind it.
            await self.holding.give_back()
        fates = await self._fates.of(sent)
        for fate in fates:
            self.report.add(fate)
            if fate.is_good:
                self.report.stuck += await self._parked.after(fate.letter)
        if sent and all(fate.is_good for fate in fates):
            self._proven.add(group.fingerprint)
            self._sizes[group.fingerprint] = next(self._ramps[group.fingerprint])

    def _size(self, group: Group) -> int:
        """It grows only when a step went well."""
        if group.fingerprint not in self._sizes:
            self._sizes[group.fingerprint] = next(self._ramps[group.fingerprint])
        return self._sizes[group.fingerprint]

    async def _not_done(self, letters: Sequence[Letter], size: int) -> list[Letter]:
        """The first so many that are not done yet; what is done before them is deleted. Of letters
        of one message one is enough at a time: the next step finds the others done."""
        chosen: dict[str, Letter] = {}
        for start in range(0, len(letters), _AT_ONCE):
            some = letters[start : start + _AT_ONCE]
            standings = await self._reader.records.of(some)
            done = [letter for letter in some if standings[letter.id].done]
            await self._forget(done)
            for letter in some:
                if not standings[letter.id].done and len(chosen) < size:
                    chosen.setdefault(letter.event_id or letter.original_id, letter)
            if len(chosen) == size:
                break
        return list(chosen.values())

    async def _forget(self, done: Sequence[Letter]) -> None:
        if not done:
            return
        self._watcher.already(done)
        for letter in done:
            self.report.stuck += await self._parked.after(letter)
        await self.holding.delete([letter.delivery for letter in done])
        self.report.already += done

    def _copies(self, letters: Sequence[Letter]) -> Iterator[tuple[str, QueueEntry]]:
        for letter in letters:
            try:
                yield letter.id, copy_of(letter, self._plan.run)
            except TooLarge as error:
                self._passed_over.add(letter.id)
                self.report.unfit.append((letter, str(error)))
