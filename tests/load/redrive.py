"""Dead letters of four causes, one of them mended, and a redrive that is killed again and again.

    python -m tests.load.redrive [--letters 2000] [--times 100] [--seed 1]

A worker handles messages and makes dead letters of all of them. `headrace dlq group` has to tell
four causes apart, and `headrace dlq redrive` of one of them has to stop at its canary as long as
nothing is mended. Then the cause is mended, and the redrive, a process of its own, is killed with
SIGKILL at a random moment and started again, until it has come to its end; then new letters of this
cause are made, and so on, until it was killed so often. In the end every event of the mended cause
has to have taken effect once, and every other letter has to be where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, get_args

from headrace.client import read
from headrace.hosts.worker import Worker
from headrace.pipeline import running
from headrace.ports import QueueEntry
from headrace.topology.model import dead_letter_queue
from tests.load.common import BRIEF, Emulated, emptied, emulated, entry, fill
from tests.load.redrive_app import MENDED, Cause, Form, FormFiled, clerks

ROOT: Final = Path(__file__).parents[2]

SERVICE: Final = "tests.load.redrive_app:clerks"
CAUSES: Final = 4
PATIENCE: Final = 300.0
DEAD_LETTERS: Final = dead_letter_queue(clerks.name)


@dataclass(slots=True)
class Outcome:
    """What was seen. `lost` are events of the mended cause without an effect and other letters that
    are gone, `repeated` are effects and letters that there is more than one of, `failed` counts all
    else that is not as it should be, and `findings` says what."""

    letters: int
    groups: int = 0
    kills: int = 0
    lost: int = 0
    repeated: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return len(self.findings)

    @property
    def good(self) -> bool:
        return self.groups == CAUSES and not (self.lost or self.repeated or self.failed)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.findings.append(otherwise)

    def line(self) -> str:
        return (
            f"letters={self.letters} groups={self.groups} kills={self.kills} lost={self.lost} "
            f"repeated={self.repeated} failed={self.failed}"
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and all that it printed."""

    code: int
    lines: list[str]


class Trial:
    """All of it, on one emulator."""

    def __init__(self, on: Emulated, letters: int, times: int, seed: int, visibility: int) -> None:
        self.outcome = Outcome(letters)
        self._on = on
        self._times = times
        self._random = Random(seed)
        self._visibility = visibility
        self._each = letters // CAUSES
        self._others: Counter[str] = Counter()
        self._stamped = 0
        # A run sends a hundred letters a second.
        self._longest = 0.3 + self._each / 100

    async def run(self) -> Outcome:
        async with self._worker():
            await self._make_letters()
            group = await self._tell_apart()
            await self._stop_at_the_canary(group)
            MENDED.add("stamp")
            while True:
                await self._drain(group)
                if self.outcome.kills >= self._times:
                    break
                MENDED.clear()
                await self._file("stamp", self._each)
                MENDED.add("stamp")
        await self._judge()
        return self.outcome

    # --- letters ---

    async def _make_letters(self) -> None:
        for cause in get_args(Cause):
            if cause != "stamp":
                await self._file(cause, self._each)
        unread = [QueueEntry(f'{{"detail-type": "FormFiled", {n}') for n in range(self._each)]
        await self._send(unread)
        self._others += Counter(each.body for each in unread)
        await self._file("stamp", self._each)

    async def _file(self, cause: Cause, count: int) -> None:
        """Make so many dead letters."""
        name = self._stamped if cause == "stamp" else 0
        entries = [
            entry(FormFiled(number=number, cause=cause), f"{cause}-{number}")
            for number in range(name, name + count)
        ]
        if cause == "stamp":
            self._stamped += count
        else:
            self._others += Counter(each.body for each in entries)
        await self._send(entries)

    async def _send(self, entries: Sequence[QueueEntry]) -> None:
        queues = self._on.ports.queues
        there = await self._there() + len(entries)
        await fill(queues, clerks.name, entries)

        async def all_there() -> bool:
            return await self._there() >= there

        await _until(all_there)

    async def _there(self) -> int:
        depth = await self._on.ports.queues.depth(DEAD_LETTERS)
        return depth.visible + depth.in_flight

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with running(clerks, self._on.ports) as pipeline:
            worker = asyncio.create_task(Worker([pipeline], settings=BRIEF).run(stop))
            try:
                yield
            finally:
                stop.set()
                await worker

    # --- the command line ---

    async def _tell_apart(self) -> str:
        """The fingerprint of the cause that will be mended."""
        ended = await self._headrace("group", "--json")
        groups = [json.loads(line) for line in ended.lines if line.startswith("{")]
        self.outcome.groups = len(groups)
        self.outcome.expect(
            [group["count"] for group in groups] == [self._each] * CAUSES,
            f"the groups have {[group['count'] for group in groups]} letters",
        )
        return next(str(g["group"]) for g in groups if g["error"] == "RuntimeError")

    async def _stop_at_the_canary(self, group: str) -> None:
        ended = await self._headrace("redrive", "--group", group, "--yes")
        said = "\n".join(ended.lines)
        self.outcome.expect(ended.code == 1, f"the redrive of what fails ended with {ended.code}")
        self.outcome.expect(
            "1 failed again" in said and "RuntimeError: There is no stamp for" in said,
            f"it does not say why it stopped: {said}",
        )
        self.outcome.expect(
            f"{self._each - 1:,} more were not sent back" in said, f"it did not stop: {said}"
        )

    async def _drain(self, group: str) -> None:
        """Redrive until none of the group is left, killing it as long as that is wanted."""
        began = time.monotonic()
        while await self._there() > self._others.total():
            if time.monotonic() - began > PATIENCE:
                self.outcome.findings.append("the group is not drained after all this time")
                return
            process = await self._start("redrive", "--group", group, "--yes")
            if self.outcome.kills < self._times:
                await self._kill(process)
            ended = await _ended(process)
            if ended.code == -9:
                self.outcome.kills += 1
                print(f"{self.outcome.kills:4}  killed; {_last(ended)}", flush=True)
            else:
                said = "\n".join(ended.lines)
                self.outcome.expect(ended.code == 0, f"a redrive ended with {ended.code}: {said}")
        await self._handled()

    async def _handled(self) -> None:
        """Until the worker is done with what was sent back, by killed processes too: those wait for
        no fate of their letters."""
        queues = self._on.ports.queues

        async def none_left() -> bool:
            depth = await queues.depth(clerks.name)
            return depth.visible + depth.in_flight == 0

        try:
            await _until(none_left)
        except TimeoutError:
            depth = await queues.depth(clerks.name)
            self.outcome.findings.append(f"the queue of the service holds {depth}")

    async def _kill(self, process: Process) -> None:
        """Some time after it has begun to send letters back, if it is still there then."""
        assert process.stdout is not None
        async for line in process.stdout:
            if b"canary" in line or b"done before" in line:
                break
        await asyncio.sleep(self._random.uniform(0, self._longest))
        if process.returncode is None:
            process.kill()

    async def _headrace(self, *arguments: str) -> Ended:
        return await _ended(await self._start(*arguments))

    async def _start(self, command: str, *arguments: str) -> Process:
        paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from headrace.cli import main; main()"),
            *("dlq", command, SERVICE, "--visibility", str(self._visibility), *arguments),
            cwd=ROOT,
            env={**os.environ, **self._on.environment, "PYTHONPATH": paths},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
        )

    # --- the end ---

    async def _judge(self) -> None:
        outcome, ports = self.outcome, self._on.ports
        numbers = [str(number) for number in range(self._stamped)]
        forms = await read(ports, Form, numbers, table=clerks.table or "")
        times = [form.times if form else 0 for form in forms]
        await self._seen_again()
        left = Counter(letter.body for letter in await emptied(ports.queues, DEAD_LETTERS))
        outcome.lost = times.count(0) + (self._others - left).total()
        outcome.repeated = sum(each > 1 for each in times) + (left - self._others).total()

    async def _seen_again(self) -> None:
        """Until nothing is hidden any more that a killed process held."""

        async def all_visible() -> bool:
            return (await self._on.ports.queues.depth(DEAD_LETTERS)).in_flight == 0

        await _until(all_visible)


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


async def _ended(process: Process) -> Ended:
    output, _ = await process.communicate()
    return Ended(process.returncode or 0, output.decode(errors="replace").splitlines())


def _last(ended: Ended) -> str:
    return ended.lines[-1] if ended.lines else "nothing was printed after that"


async def redriven(
    letters: int, times: int, seed: int = 1, *, visibility: int = 3, url: str | None = None
) -> Outcome:
    """Run the trial on the emulator at `url`, or on one of its own."""
    MENDED.clear()
    async with emulated(clerks, url=url) as on:
        return await Trial(on, letters, times, seed, visibility).run()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.redrive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--letters", type=int, default=2_000, metavar="N")
    parser.add_argument("--times", type=int, default=100, metavar="N", help="kills")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    options = parser.parse_args()
    # Handlers fail on purpose.
    logging.getLogger("headrace").setLevel(logging.ERROR)
    outcome = asyncio.run(redriven(options.letters, options.times, options.seed))
    for finding in outcome.findings:
        print(f"wrong: {finding}")
    print(outcome.line())
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
