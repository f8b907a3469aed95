"""Inventory on both of its hosts, each in a process of its own, and what is seen of them.

on Lambda     the runtime's own client, and an event source mapping, which is played here: it
              receives, invokes, and deletes what the function does not report
on a worker   `headrace worker`

How much each of them handled is what it says itself, in the metrics that it prints.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from headrace.errors import HeadraceError
from headrace.hosts import emulator
from headrace.limits import SQS_BATCH_ENTRIES
from headrace.ports import Delivery, ItemKey, Ports
from headrace.testing.runtime_api import FunctionError, LambdaFunction, lambda_runtime, sqs_event
from services.inventory.app import inventory
from services.soak.tap import Seen

ROOT: Final = Path(__file__).parents[2]
LAMBDA_HANDLER: Final = "services.inventory.lambda_handler.handler"
WORKER_SERVICE: Final = "services.inventory.app:inventory"

_TIED: Final = Path(emulator.__file__).with_name("_tied.py")
_METRICS: Final = {"HEADRACE_METRICS": "emf", "HEADRACE_METRICS_SECONDS": "0.1"}
_ONE_AT_A_TIME: Final = {"HEADRACE_CONCURRENCY": "1"}
"""So that some of a batch is done while the rest is not begun."""

_TWO_AT_A_TIME: Final = {"HEADRACE_CONCURRENCY": "2"}
"""The worker takes as many as it has places for, and with more it leaves little to Lambda."""

_POLL: Final = timedelta(seconds=1)
_LOOK_SECONDS: Final = 0.1
_LOG_LINES: Final = 20


class HostEnded(HeadraceError):
    """A host ended by itself, or otherwise than it was told to."""


class Witness(Seen):
    """What the tap sees of the shop, and what each host says of its work.

    `handled` counts handlers that took effect, and `duplicates` those that found their effects
    standing, both by the host's name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handled: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()

    def told(self, host: str, line: str) -> None:
        """Take note of a line that a host has printed."""
        metrics = orjson.loads(line) if line.startswith('{"_aws"') else {}
        self.handled[host] += metrics.get("Handled", 0)
        self.duplicates[host] += metrics.get("Duplicates", 0)
        self.look_again()

    def look_again(self) -> None:
        """Have everyone who waits look whether it is so by now."""
        self._happened.set()


class Host(ABC):
    """A host of the service from its start to its end."""

    name: str

    @abstractmethod
    async def run(self) -> None:
        """Handle messages until `stop`, and end what was begun.

        Raises `HostEnded` if the host ends by itself, or not as it should.
        """

    @abstractmethod
    async def ready(self) -> None:
        """Wait until it takes messages."""

    @abstractmethod
    async def in_the_middle(self) -> None:
        """Wait until it is at work: then it is a bad moment to stop it."""

    @abstractmethod
    def stop(self) -> None:
        """Tell it to take nothing more."""


# --- Lambda --------------------------------------------------------------------------------------


class OnLambda(Host):
    """A function with its event source mapping. `cut_short` counts the messages of invocations
    whose environment was killed, `completed` those of the one that ran when the mapping was
    disabled."""

    name = "lambda"

    def __init__(
        self,
        ports: Ports,
        queue_arn: str,
        environ: Mapping[str, str],
        witness: Witness,
    ) -> None:
        self.cut_short = 0
        self.completed = 0
        self._queues = ports.queues
        self._store = ports.store
        self._arn = queue_arn
        self._environ = {**environ, **_METRICS, **_ONE_AT_A_TIME}
        self._witness = witness
        self._disabled = False
        self._to_be_cut = False
        self._was_cut = asyncio.Event()
        self._ready = asyncio.Event()
        self._taken = asyncio.Event()

    async def run(self) -> None:
        while not self._disabled:
            # An environment that was killed is replaced, as Lambda does.
            async with lambda_runtime(
                LAMBDA_HANDLER, environment=self._environ, name=inventory.name
            ) as function:
                # Before anything is received: it takes longer than a message is hidden for here.
                await function.invoke(sqs_event(self._arn))
                self._ready.set()
                await self._poll(_Printing(function, self.name, self._witness))

    async def ready(self) -> None:
        await self._ready.wait()

    async def cut(self) -> None:
        """Kill the environment in the middle of an invocation: as soon as there is one of which a
        handler has committed."""
        self._to_be_cut = True
        await self._was_cut.wait()

    async def in_the_middle(self) -> None:
        self._taken.clear()
        await self._taken.wait()

    def stop(self) -> None:
        self._disabled = True

    async def _poll(self, function: _Printing) -> None:
        """Until the mapping is disabled, or the environment killed. What a receive brings that
        was open is still handled."""
        while not (self._disabled or function.is_closed):
            batch = await self._queues.receive(inventory.name, limit=SQS_BATCH_ENTRIES, wait=_POLL)
            if batch:
                self._taken.set()
                await self._handle(function, batch)

    async def _handle(self, function: _Printing, batch: Sequence[Delivery]) -> None:
        answer = await self._answer(function, batch)
        if function.is_closed:
            # Lambda deletes nothing then.
            self.cut_short += len(batch)
            self._to_be_cut = False
            self._ready.clear()
            self._was_cut.set()
            return
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        handled = [d.receipt_handle for d in batch if d.message_id not in failed]
        self.completed = len(batch)
        if handled:
            # One that is refused was received by somebody else meanwhile, who deletes it.
            await self._queues.delete(inventory.name, handled)

    async def _answer(self, function: _Printing, batch: Sequence[Delivery]) -> Any:
        """Of no use if the environment was killed meanwhile."""
        invoking = asyncio.ensure_future(function.invoke(sqs_event(self._arn, *batch)))
        try:
            if self._to_be_cut and await self._is_half_done(batch, invoking):
                await function.close()
            return await invoking
        except FunctionError as error:
            if not function.is_closed:
                raise HostEnded(f"The function failed: {error}\n{function.last_words()}") from error
        finally:
            invoking.cancel()

    async def _is_half_done(self, batch: Sequence[Delivery], invoking: asyncio.Future[Any]) -> bool:
        """Wait until a handler has committed and its message is not deleted yet; false if the
        answer was faster."""
        committing = asyncio.create_task(self._until_committed(batch))
        try:
            await asyncio.wait((committing, invoking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            committing.cancel()
        return not invoking.done()

    async def _until_committed(self, batch: Sequence[Delivery]) -> None:
        before = now = await self._records(batch)
        while now == before:
            now = await self._records(batch)

    async def _records(self, batch: Sequence[Delivery]) -> int:
        """How many inbox records there are of these messages."""
        ids = {orjson.loads(delivery.body)["detail"]["metadata"]["id"] for delivery in batch}
        keys = [
            ItemKey(inventory.name, f"inbox#{inventory.name}.{handler.name}#{id}", "-")
            for handler in inventory.handlers
            for id in ids
        ]
        return sum(item is not None for item in await self._store.get(keys))


class _Printing:
    """A function, of which the witness hears what it prints."""

    def __init__(self, function: LambdaFunction, host: str, witness: Witness) -> None:
        self.is_closed = False
        self._function = function
        self._host = host
        self._witness = witness
        self._told = 0

    async def invoke(self, event: Mapping[str, Any]) -> Any:
        answer = await self._function.invoke(event)
        if not self.is_closed:
            self._tell()
        return answer

    async def close(self) -> None:
        """End the environment, whatever it does."""
        self.is_closed = True
        await self._function.close()

    def last_words(self) -> str:
        return _last(self._function.printed())

    def _tell(self) -> None:
        """All lines since the last answer: metrics are written before the answer."""
        printed = self._function.printed()
        new, self._told = printed[self._told :], len(printed)
        for line in new.splitlines():
            self._witness.told(self._host, line)


# --- the worker ----------------------------------------------------------------------------------


class OnWorker(Host):
    """`headrace worker`, as ECS runs it and ends it."""

    name = "worker"

    def __init__(self, environ: Mapping[str, str], witness: Witness, log: Path) -> None:
        self._port = emulator.free_port()
        health = {"HEADRACE_HEALTH": f"{emulator.HOST}:{self._port}"}
        self._environ = {**environ, **_METRICS, **_TWO_AT_A_TIME, **health}
        self._witness = witness
        self._log = log
        self._process: Process | None = None
        self._told_to_stop = False

    async def run(self) -> None:
        process = self._process = await self._start()
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                self._witness.told(self.name, line.decode())
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if status or not self._told_to_stop:
            raise HostEnded(
                f"The worker ended with status {status}. The last it printed:\n"
                f"{_last(self._log.read_text(errors='replace'))}"
            )

    async def ready(self) -> None:
        while not await _is_up(self._port):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(_LOOK_SECONDS)

    async def in_the_middle(self) -> None:
        before = self._witness.handled[self.name]
        await self._witness.until(lambda: self._witness.handled[self.name] > before)

    def stop(self) -> None:
        """SIGTERM."""
        self._told_to_stop = True
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    async def _start(self) -> Process:
        with self._log.open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(_TIED), str(os.getpid())),
                *(sys.executable, "-c", "from headrace.cli import main; main()"),
                *("worker", WORKER_SERVICE),
                cwd=ROOT,
                env=self._environ,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=errors,
                # Ctrl-C goes to the whole foreground group, and this one would end by itself.
                start_new_session=True,
            )


async def _is_up(port: int) -> bool:
    """Whether `/healthz` is answered with 200; it polls right after that. `/readyz` would wait for
    the first receive, and there may be nothing to receive."""
    try:
        reader, writer = await asyncio.open_connection(emulator.HOST, port)
    except ConnectionRefusedError:
        return False
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).split()[1:2] == [b"200"]
    finally:
        writer.close()


def _last(text: str) -> str:
    return "\n".join(text.splitlines()[-_LOG_LINES:]) or "(nothing)"
