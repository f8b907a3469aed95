"""What it costs to be seen: `python -m benchmarks.observe_cost`.

A worker handles messages that each change an item and send an event, on an emulator in a process of
its own. Rounds alternate between everything off, and everything on: a trace of every message to
X-Ray's daemon, metrics, and JSON logs with a line of the handler's own for each message. Counted is
the CPU time of this process, once a fifth of the messages of a round is done and all is warm.
The last line is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Final

from headrace import Delivery, Entity, Event, Outcome, Service, Transaction
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.envelope import queue_body, root_metadata, seal
from headrace.hosts.emulator import endpoints_environment, ministack
from headrace.hosts.settings import ObserveSettings
from headrace.hosts.worker import run_worker
from headrace.observe.logs import configure
from headrace.observer import Observer
from headrace.outcome import Ack
from headrace.ports import Ports, QueueEntry
from headrace.topology.derive import topology

logger = logging.getLogger(__name__)

OFF: Final = {"HEADRACE_LOG_LEVEL": "WARNING"}
ON: Final = {
    "HEADRACE_TRACING": "xray",
    "HEADRACE_METRICS": "emf",
    "HEADRACE_METRICS_SECONDS": "1",
    "HEADRACE_LOGS": "json",
    "HEADRACE_LOG_LEVEL": "INFO",
}


class MeterRead(Event, source="benchmark.meters"):
    meter_id: str
    kilowatt_hours: int


class ReadingKept(Event, source="benchmark.readings"):
    meter_id: str
    total: int


class Reading(Entity, pk="reading#{meter_id}"):
    meter_id: str
    total: int = 0


readings = Service("readings")


@readings.on(MeterRead)
async def keep(event: MeterRead, tx: Transaction) -> ReadingKept:
    reading = await tx.get(Reading, event.meter_id) or Reading(meter_id=event.meter_id)
    total = reading.total + event.kilowatt_hours
    tx.put(reading.model_copy(update={"total": total}))
    logger.info("Meter %s stands at %d.", event.meter_id, total)
    return ReadingKept(meter_id=event.meter_id, total=total)


# --- one round --------------------------------------------------------------------------------


class _Finish(Observer):
    """Stops the worker after the last message, and takes the time of those after the warm-up."""

    def __init__(self, messages: int, stop: asyncio.Event) -> None:
        self._left = messages
        self._counted = messages - messages // 5
        self._stop = stop
        self._began = 0.0
        self.microseconds = 0.0

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self._left -= isinstance(outcome, Ack)
        if self._left == self._counted:
            self._began = time.process_time()
        elif not self._left:
            self.microseconds = (time.process_time() - self._began) / self._counted * 1e6
            self._stop.set()


async def _handled(ports: Ports, messages: int, variables: Mapping[str, str]) -> float:
    """Microseconds of CPU for each of so many messages, under these variables."""
    await _fill(ports, messages)
    stop = asyncio.Event()
    finish = _Finish(messages, stop)
    with _set(variables):
        await run_worker([readings], ports, concurrency=20, observer=finish, stop=stop)
    return finish.microseconds


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    before, level = dict(os.environ), logging.getLogger().level
    os.environ.update(variables)
    logging.getLogger().setLevel(variables["HEADRACE_LOG_LEVEL"])
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
        os.environ.clear()
        os.environ.update(before)


async def _fill(ports: Ports, messages: int) -> None:
    now = datetime.now(UTC)
    for start in range(0, messages, 10):
        entries = []
        for number in range(start, min(start + 10, messages)):
            event = MeterRead(meter_id=f"m-{number}", kilowatt_hours=number)
            sealed = seal(event, root_metadata(event, id=f"r-{number}", now=now))
            entries.append(QueueEntry(queue_body(sealed)))
        await ports.queues.send("readings", entries)


# --- rounds that alternate -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rounds:
    """Microseconds of CPU for a message, by round."""

    off: list[float]
    on: list[float]

    def __str__(self) -> str:
        ratio = median(self.on) / median(self.off)
        return f"on_vs_off={ratio:.2f}"


async def measured(messages: int, rounds: int, tell: Callable[[str], object]) -> Rounds:
    found = Rounds([], [])
    async with ministack() as endpoint:
        with _daemon() as daemon, _set({**ON, "AWS_XRAY_DAEMON_ADDRESS": daemon}):
            configure(ObserveSettings.from_environment())
            for number in range(rounds):
                pairs = [("off", OFF, found.off), ("on", ON, found.on)]
                for kind, variables, times in pairs if number % 2 else reversed(pairs):
                    name = f"{kind}-{number}"
                    # With queues of its own: the emulator keeps the last polls of a worker open.
                    environ = {**endpoints_environment(endpoint), "HEADRACE_NAMESPACE": name}
                    config = AwsConfig.from_environment(environ)
                    await provision(topology(readings), config)
                    async with open_ports(config) as ports:
                        times.append(await _handled(ports, messages, variables))
                    tell(f"{name:<8} {times[-1]:>7.0f} us of CPU a message")
    return found


@contextmanager
def _daemon() -> Iterator[str]:
    """Where an X-Ray daemon would listen; the kernel drops what nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        host, port = sink.getsockname()
        yield f"{host}:{port}"


@contextmanager
def _written_away() -> Iterator[Callable[[str], object]]:
    """What is logged, and the metrics, go into a file as they would in production; yields what
    prints in their place."""
    with tempfile.TemporaryFile() as file, os.fdopen(os.dup(1), "w", buffering=1) as terminal:
        kept = os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda text: terminal.write(f"{text}\n")
        finally:
            sys.stdout.flush()
            os.dup2(terminal.fileno(), 1)
            os.dup2(kept, 2)
            os.close(kept)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe_cost", description=__doc__)
    parser.add_argument("--messages", type=int, default=400, help="in one round")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with _written_away() as tell:
        found = asyncio.run(measured(options.messages, options.rounds, tell))
    print(f"off: median {median(found.off):.0f} us, on: median {median(found.on):.0f} us")
    print(found)


if __name__ == "__main__":
    main()
