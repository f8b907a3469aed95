"""The services as processes of their own, which are killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic

from headrace.errors import HeadraceError
from headrace.hosts import emulator

ROOT = Path(__file__).parents[2]

_HEADRACE = "from headrace.cli import main; main()"
_TIED = Path(emulator.__file__).with_name("_tied.py")
_GRACE_SECONDS = 10
_LOG_LINES = 20


class WorkerEnded(HeadraceError):
    """A worker ended by itself."""


class WorkerProcess:
    """`headrace worker` for one service, which `where` finds as `module:name`. `kills` counts
    how often it was killed."""

    def __init__(self, service: str, where: str, environ: Mapping[str, str], log: Path) -> None:
        self.service = service
        self.kills = 0
        self._where = where
        self._environ = environ
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._doomed = False
        self._started = 0.0

    async def run(self) -> None:
        """Start the process, and again whenever it was killed; it ends when this is cancelled.

        Raises `WorkerEnded`, with the last of its log, if it ends by anything but `kill`.
        """
        while True:
            process = await self._start()
            self._doomed, self._process = False, process
            try:
                status = await process.wait()
            finally:
                self._process = None
                await _end(process)
            if not self._doomed or status != -signal.SIGKILL:
                raise WorkerEnded(
                    f"The worker of {self.service} ended by itself with status {status}. "
                    f"The last it printed:\n{self._tail()}"
                )
            self.kills += 1

    def has_run_at(self, moment: float) -> bool:
        """Whether the process that runs now did so at this moment of the monotonic clock."""
        return self._process is not None and self._started < moment

    def kill(self) -> None:
        """SIGKILL, at once; nothing if it is dying or just being started."""
        if self._process is None or self._doomed:
            return
        self._doomed = True
        # One that has ended by itself meanwhile is found out by its status.
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _start(self) -> asyncio.subprocess.Process:
        self._started = monotonic()
        tied = [sys.executable, "-I", str(_TIED), str(os.getpid())]
        with self._log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *tied,
                *(sys.executable, "-c", _HEADRACE, "worker", self._where),
                cwd=ROOT,
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C goes to the whole foreground group, and this one would end by itself.
                start_new_session=True,
            )

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (nothing)"


@dataclass(frozen=True, slots=True)
class Killing:
    """Who is killed when: a worker chosen at random, every `shortest` to `longest` seconds. One
    that has sent nothing since it was started is spared: killing it would prove nothing, and a
    slow machine would never get anywhere."""

    chance: Random
    shortest: float
    longest: float

    async def go_on(
        self, workers: Sequence[WorkerProcess], last_sent: Callable[[str], float]
    ) -> None:
        """Kill until cancelled. `last_sent` says when a service was last heard of."""
        while True:
            await asyncio.sleep(self.chance.uniform(self.shortest, self.longest))
            chosen = self.chance.choice(workers)
            if chosen.has_run_at(last_sent(chosen.service)):
                chosen.kill()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
