"""What it costs to be seen: `python -m benchmarks.observe_cost`.

A worker handles messages that each change an item and send an event, on an emulator in a process of
its own. Rounds alternate between everything off, and everything on: a trace of every message to
X-Ray's daemon, metrics, and JSON logs with a line of the handler's own for each message. Counted is
the CPU time of the worker's process, once a fifth of the messages is done and everything is warm.
The last line is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
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


# --- one round, in a process of its own ----------------------------------------------------------


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


async def _handled(messages: int) -> float:
    """Microseconds of CPU for each of so many messages."""
    configure(ObserveSettings.from_environment())
    config = AwsConfig.from_environment()
    await provision(topology(readings), config)
    stop = asyncio.Event()
    finish = _Finish(messages, stop)
    async with open_ports(config) as ports:
        await _fill(ports, messages)
        await run_worker([readings], ports, concurrency=20, observer=finish, stop=stop)
    return finish.microseconds


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


async def measured(messages: int, rounds: int) -> Rounds:
    found = Rounds([], [])
    async with ministack() as endpoint:
        with _daemon() as daemon:
            for number in range(rounds):
                pairs = [(OFF, found.off), (ON, found.on)]
                for variables, times in pairs if number % 2 else reversed(pairs):
                    name = f"{'on' if variables is ON else 'off'}-{number}"
                    environ = {
                        **os.environ,
                        **endpoints_environment(endpoint),
                        **variables,
                        "AWS_XRAY_DAEMON_ADDRESS": daemon,
                        "HEADRACE_NAMESPACE": name,
                    }
                    times.append(await asyncio.to_thread(_round, messages, environ))
                    print(f"{name:<8} {times[-1]:>7.0f} us of CPU a message", flush=True)
    return found


def _round(messages: int, environ: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory(prefix="headrace-observe-") as folder:
        result = Path(folder, "result")
        command = [sys.executable, "-m", "benchmarks.observe_cost", "--messages", str(messages)]
        with Path(folder, "out").open("wb") as out, Path(folder, "err").open("wb") as err:
            subprocess.run(
                [*command, "--round", str(result)], env=environ, stdout=out, stderr=err, check=False
            )
        if not result.exists():
            raise SystemExit(Path(folder, "err").read_text())
        return float(result.read_text())


@contextmanager
def _daemon() -> Iterator[str]:
    """Where an X-Ray daemon would listen; the kernel drops what nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        host, port = sink.getsockname()
        yield f"{host}:{port}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe_cost", description=__doc__)
    parser.add_argument("--messages", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.round is not None:
        options.round.write_text(str(asyncio.run(_handled(options.messages))))
        return
    found = asyncio.run(measured(options.messages, options.rounds))
    print(f"off: median {median(found.off):.0f} us, on: median {median(found.on):.0f} us")
    print(found)


if __name__ == "__main__":
    main()
