"""One stop of a worker under load, and all that can be seen of it.

worker process   handles 10 messages, holds 10 more          the queue has yet others
SIGTERM          what is handled ends; what waits is handed back
the exit         0, and nothing is hidden
a second worker  handles what is left, in this process and without taking time
the end          every event has taken effect once, and every handler ran once
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from headrace.client import read
from headrace.ports import QueueDepth
from tests.load.common import BRIEF, Emulated, Watch, entry, fill, worked_off
from tests.load.journal import Entry, Journal
from tests.load.napping import Nap, NapTaken, napping

ROOT: Final = Path(__file__).parents[2]

MESSAGES: Final = 100
CONCURRENCY: Final = 10
PREFETCH: Final = 10
SLOWEST: Final = 3.0
"""Seconds that a handler takes at most; a third of them take no time."""

ENDLESS: Final = 60.0
ENDLESS_ONES: Final = (2, 5, 11)
SHORT_DRAIN: Final = "1"

IN_TIME: Final = 30.0
"""Seconds that ECS leaves a process after SIGTERM."""

PATIENCE: Final = 60.0


@dataclass(slots=True)
class Stop:
    """What was seen of one stop.

    `running` and `waiting` are the messages that the worker held when it was told: those that were
    handled, and those that were not yet. `hidden` are messages that nobody could receive right
    after the exit, `twice` events that took effect more than once, or were handled again without
    having been cut short. `wrong` says all that is not as it should be.
    """

    number: int
    outlasts: bool
    seconds: float = 0.0
    running: int = 0
    waiting: int = 0
    cut_short: int = 0
    hidden: int = 0
    twice: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)


class Trial:
    """A worker to be stopped: a service of its own, its messages, and a journal of what its
    handlers did, in `folder`. If it `outlasts`, some of them take longer than the drain."""

    def __init__(
        self, number: int, folder: Path, *, outlasts: bool = False, slowest: float = SLOWEST
    ) -> None:
        self.stop = Stop(number, outlasts)
        self._slowest = slowest
        self.name = f"napping-{number}"
        self.journal = Journal(folder / f"{self.name}.journal")
        self.log = folder / f"{self.name}.log"
        self.second = napping(self.name, self.journal, hurried=True)
        self._random = Random(number)
        ids = (f"{self.name}/{number}" for number in range(MESSAGES))
        self._entries = {
            id: entry(NapTaken(seconds=nap), id) for id, nap in zip(ids, self._naps(), strict=True)
        }

    def _naps(self) -> Iterator[float]:
        for number in range(MESSAGES):
            nap = self._random.choice([0, 1, 1]) * self._random.uniform(0, self._slowest)
            yield ENDLESS if self.stop.outlasts and number in ENDLESS_ONES else nap

    async def run(self, on: Emulated) -> Stop:
        """Start the worker, stop it, and judge what came of it."""
        await fill(on.ports.queues, self.name, list(self._entries.values()))
        async with self._process(on) as process:
            if not await self._under_load(on, process):
                self.stop.wrong.append("the worker never held as many messages as it should")
                return self.stop
            told = time.monotonic()
            process.send_signal(signal.SIGTERM)
            await self._ended(process)
            self.stop.seconds = time.monotonic() - told
            depth = await on.ports.queues.depth(self.name)
        self.stop.running = len(running([e for e in self.journal.entries() if e.at < told]))
        await self._judge_exit(on, process, depth)
        await self._judge_end(on, depth.visible)
        return self.stop

    def last_words(self) -> str:
        """The end of what the process has printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    # --- the process ---

    @asynccontextmanager
    async def _process(self, on: Emulated) -> AsyncIterator[Process]:
        paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        own = {"LOAD_SERVICE": self.name, "LOAD_JOURNAL": str(self.journal.path)}
        drain = ("--drain", SHORT_DRAIN) if self.stop.outlasts else ()
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", "from headrace.cli import main; main()"),
                *("worker", "tests.load.napping_app:service"),
                *("--concurrency", str(CONCURRENCY), "--prefetch", str(PREFETCH), *drain),
                cwd=ROOT,
                env={**os.environ, **on.environment, **own, "PYTHONPATH": paths},
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _under_load(self, on: Emulated, process: Process) -> bool:
        """Wait until SQS says that it holds as many messages as it may: for the first time after a
        while, so that it is not always the beginning."""
        later = self._random.uniform(0, self._slowest)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while process.returncode is None:
                    began = self.journal.entries()[:1]
                    if began and time.monotonic() - began[0].at >= later:
                        depth = await on.ports.queues.depth(self.name)
                        if depth.in_flight >= CONCURRENCY + PREFETCH:
                            return True
                    await asyncio.sleep(0.03)
        return False

    async def _ended(self, process: Process) -> None:
        try:
            async with asyncio.timeout(IN_TIME):
                await process.wait()
        except TimeoutError:
            self.stop.wrong.append(f"the process is still there {IN_TIME:g} s after SIGTERM")
            process.kill()
            await process.wait()

    # --- what came of it ---

    async def _judge_exit(self, on: Emulated, process: Process, depth: QueueDepth) -> None:
        """Right after the exit."""
        stop = self.stop
        times = await self._times(on)
        done = sum(count > 0 for count in times.values())
        cut_short = sorted(id for id in started(self.journal.entries()) if not times[id])
        stop.cut_short, stop.hidden = len(cut_short), depth.in_flight
        stop.expect(process.returncode == 0, f"its exit code is {process.returncode}")
        stop.expect(stop.hidden == 0, f"{stop.hidden} messages are hidden after the exit")
        # What is cut short right after its commit is handed back too, and known when it comes.
        as_left = depth.visible == MESSAGES - done
        as_left |= stop.outlasts and depth.visible > MESSAGES - done
        stop.expect(as_left, f"of {MESSAGES} messages {done} took effect, {depth.visible} are left")
        if stop.outlasts:
            stop.expect(bool(cut_short), "no handler was cut short, though some outlast the drain")
        else:
            stop.expect(not cut_short, f"handlers were cut short: {cut_short}")

    async def _judge_end(self, on: Emulated, left: int) -> None:
        """After a second worker, which handles what is left."""
        stop, before = self.stop, set(started(self.journal.entries()))
        watch = Watch(left)
        await worked_off(self.second, on.ports, watch, BRIEF, limit=PATIENCE)
        came_again = {body for body, counts in watch.receives.items() if counts[-1] > 1}
        handed_back = {id for id, each in self._entries.items() if each.body in came_again}
        stop.waiting = len(handed_back - before)
        stop.expect(stop.waiting > 0, "nothing was handed back, though there was more to handle")

        runs, times = Counter(started(self.journal.entries())), await self._times(on)
        again = handed_back & before if stop.outlasts else set()
        run_twice = {id for id in self._entries if runs[id] > (2 if id in again else 1)}
        twice = {id for id in self._entries if times[id] > 1}
        without = [id for id in self._entries if not (runs[id] and times[id])]
        stop.twice = len(run_twice | twice)
        stop.expect(not run_twice, f"handled too often: {sorted(run_twice)}")
        stop.expect(not twice, f"more than once in effect: {sorted(twice)}")
        stop.expect(not without, f"not handled, or not in effect: {without}")
        depth = await on.ports.queues.depth(self.name)
        stop.expect(depth == _EMPTY, f"the second worker leaves {depth}")

    async def _times(self, on: Emulated) -> dict[str, int]:
        """How often each event took effect."""
        naps = await read(on.ports, Nap, list(self._entries), table=self.name)
        return {id: nap.times if nap else 0 for id, nap in zip(self._entries, naps, strict=True)}


_EMPTY: Final = QueueDepth(visible=0, in_flight=0, delayed=0)


def started(entries: Sequence[Entry]) -> list[str]:
    return [each.event_id for each in entries if each.what == "started"]


def running(entries: Sequence[Entry]) -> list[str]:
    """The events whose handlers have started and not finished."""
    finished = {each.event_id for each in entries if each.what == "finished"}
    return [id for id in started(entries) if id not in finished]
