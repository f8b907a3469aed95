"""One bad message in every batch of ten, and what that means for the other nine.

    python -m tests.load.bad_one [--messages 10000] [--seed 1]

A bad message cannot be decoded, or is poison, or fails at every attempt. A worker handles all of
them, first in memory and then on the emulator. The last line is about the emulator; the status is 1
if a good message was received more than once, a bad one is not where it belongs with its reason, or
anything is lost, in either place.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace import Delivery
from headrace.client import read
from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.ports import Ports
from headrace.system import SystemClock
from headrace.testing import memory_ports
from headrace.topology.derive import topology
from headrace.topology.model import dead_letter_queue
from tests.load.apples import Apple, Sent, apples, picked
from tests.load.common import Watch, counted, emptied, emulated, fill, worked_off

PATIENCE: Final = 600.0
SHOWN: Final = 10
"""Findings that are printed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of all messages. `findings` says what is not as it should be, in sentences."""

    messages: int
    bad: int
    good_redelivered: int
    dead_letters: int
    lost: int
    calls: Counter[str]
    seconds: float
    findings: Sequence[str]

    def line(self) -> str:
        return (
            f"messages={self.messages} bad={self.bad} good_redelivered={self.good_redelivered} "
            f"dead_letters={self.dead_letters} lost={self.lost} "
            f"calls_per_message={self.calls.total() / self.messages:.2f}"
        )


async def handled(ports: Ports, messages: int, seed: int) -> Outcome:
    """Send the messages, let a worker handle them, and see what became of them."""
    sent = list(picked(messages, seed))
    await fill(ports.queues, apples.name, [each.entry for each in sent])
    watch, calls = Watch(messages), Counter[str]()
    seconds = await worked_off(apples, counted(ports, calls), watch, limit=PATIENCE)

    reasons = await _reasons(ports)
    times = await _times(ports, sent)
    good = [each for each in sent if each.kind == "good"]
    return Outcome(
        messages=messages,
        bad=len(sent) - len(good),
        good_redelivered=sum(watch.receives[each.entry.body] != [1] for each in good),
        dead_letters=sum(map(len, reasons.values())),
        lost=sum(not times[each.number] and each.entry.body not in reasons for each in sent),
        calls=calls,
        seconds=seconds,
        findings=[
            f"{each.kind} {each.number}: {finding}"
            for each in sent
            for finding in _findings(
                each,
                watch.receives[each.entry.body],
                reasons.get(each.entry.body, []),
                times[each.number],
            )
        ],
    )


def _findings(sent: Sent, receives: list[int], reasons: list[str], times: int) -> Iterator[str]:
    """What is not as it should be with one message."""
    if receives != sent.receives:
        yield f"its receive counts are {receives}, not {sent.receives}"
    if times != (sent.kind == "good"):
        yield f"it took effect {times} times"
    if sent.reason is None:
        if reasons:
            yield f"it is a dead letter: {reasons}"
    elif len(reasons) != 1 or not reasons[0].startswith(sent.reason):
        yield f"its dead letters are {reasons}, not one that says {sent.reason!r}"


async def _reasons(ports: Ports) -> Mapping[str, list[str]]:
    """The reasons of all dead letters, by their bodies."""
    found: dict[str, list[str]] = {}
    for letter in await emptied(ports.queues, dead_letter_queue(apples.name)):
        found.setdefault(letter.body, []).append(_reason(letter))
    return found


def _reason(letter: Delivery) -> str:
    note = letter.attributes.get(NOTE_ATTRIBUTE)
    return "" if note is None else str(json.loads(note.value)["reason"])


async def _times(ports: Ports, sent: Sequence[Sent]) -> Mapping[int, int]:
    """How often each message took effect, by its number."""
    numbers = [str(each.number) for each in sent]
    stored = await read(ports, Apple, numbers, table=apples.name)
    return {
        each.number: apple.times if apple else 0 for each, apple in zip(sent, stored, strict=True)
    }


async def in_memory(messages: int, seed: int) -> Outcome:
    cloud = memory_ports(clock=SystemClock())
    cloud.provision(topology(apples))
    return await handled(cloud.ports, messages, seed)


async def on_emulator(messages: int, seed: int) -> Outcome:
    async with emulated(apples) as on:
        return await handled(on.ports, messages, seed)


def show(place: str, outcome: Outcome) -> None:
    print(f"{place}: {outcome.messages} messages in {outcome.seconds:.1f} s, with these calls:")
    for name, count in outcome.calls.most_common():
        print(f"  {name:<26} {count:6}  {count / outcome.messages:.3f} per message")
    for finding in outcome.findings[:SHOWN]:
        print(f"  wrong: {finding}")
    if len(outcome.findings) > SHOWN:
        print(f"  and {len(outcome.findings) - SHOWN} more")
    print(f"{place}: {outcome.line()}", flush=True)


async def _both(messages: int, seed: int) -> list[Outcome]:
    outcomes = []
    for place, run in (("in memory", in_memory), ("on the emulator", on_emulator)):
        outcomes.append(await run(messages, seed))
        show(place, outcomes[-1])
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.bad_one",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    options = parser.parse_args()
    # Messages are bad on purpose.
    logging.getLogger("headrace.settle").setLevel(logging.ERROR)
    outcomes = asyncio.run(_both(options.messages, options.seed))
    print(outcomes[-1].line())
    return 1 if any(outcome.findings for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
