"""What stands, what was sent and what is left when all is over, and what is wrong with it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from headrace.limits import BATCH_GET_KEYS
from headrace.ports import Item, ItemKey, Ports
from headrace.testing import MemoryScheduler
from headrace.topology.model import dead_letter_queue
from headrace.yard import Yard
from tests.crash.bells import A_WHILE, BellRang, RopePulled, WriteDown, chronicle
from tests.crash.consumer import body_of, bring_to_an_end, left, send
from tests.crash.scenarios import Fate, Scenario

Sent: TypeAlias = Mapping[tuple[str, str], Counter[str]]


@dataclass(frozen=True, slots=True)
class Findings:
    """`sent` counts, by cause and type, the ids of what has reached the chronicle; `letters` by
    event id; `items` are the table's by partition key; `parked` are event ids in their order.
    `unmarked` are the pulls whose record need not be done, as nobody has heard of them again."""

    left: int
    sent: Sent
    letters: Counter[str]
    items: Mapping[str, Item]
    unmarked: frozenset[str]
    parked: Sequence[str]


async def findings_after(
    scenario: Scenario, ports: Ports, pulls: Sequence[RopePulled], ended: bool, pause: timedelta
) -> list[Findings]:
    """What is found once all is over. Where a record is not done by then, another copy of its
    message comes, and there are findings after that too.

    A life that `ended` may not have marked what it deleted, but has whatever came again.
    """
    again = await bring_to_an_end(scenario, ports, pause)
    unmarked = [
        pull.pull for pull in pulls if (ended or scenario.unmarked) and body_of(pull) not in again
    ]
    found = [await _found(scenario, ports, pulls, frozenset(unmarked), {}, Counter())]
    copies = [pull for pull in pulls if _status(scenario, found[0], pull.pull) == "pending"]
    if copies:
        await send(scenario, ports, copies, attempt=" again")
        await bring_to_an_end(scenario, ports, pause)
        found += [
            await _found(scenario, ports, pulls, frozenset(), found[0].sent, found[0].letters)
        ]
    return found


def shortcomings(
    scenario: Scenario, findings: Findings, pulls: Sequence[RopePulled]
) -> Iterator[str]:
    """What is not as it must be after these messages, in sentences."""
    if findings.left:
        yield f"{findings.left} messages are left in {scenario.queue}"
    for bell in dict.fromkeys(pull.bell for pull in pulls):
        own = [pull.pull for pull in pulls if pull.bell == bell]
        yield from _wrong_with_bell(scenario, findings, bell, own)
    for number, pull in enumerate(pulls):
        yield from _wrong_with_pull(findings, pull.pull, scenario, scenario.fate_of(number))
        yield from _wrong_with_record(scenario, findings, pull.pull)
    waiting = [pull.pull for n, pull in enumerate(pulls) if scenario.fate_of(n) == "parked"]
    if list(findings.parked) != waiting:
        yield f"{list(findings.parked)} are parked, not {waiting}"


def _wrong_with_bell(
    scenario: Scenario, findings: Findings, bell: str, pulls: Sequence[str]
) -> Iterator[str]:
    item = findings.items.get(f"bell#{bell}", {})
    rings = int(item.get("rings", {"N": "0"})["N"])
    heard = [each["S"] for each in item.get("heard", {"L": []})["L"]]
    wanted = list(pulls) if scenario.fate == "done" and scenario.writes else []
    rivals = int(f"rival#{bell}" in findings.items)
    if rings != len(wanted) + rivals:
        yield f"{bell} rang {rings} times, for {len(wanted)} pulls and {rivals} of a rival"
    if (heard if scenario.is_fifo else sorted(heard)) != wanted:
        yield f"{bell} heard {heard}, not {wanted}"


def _wrong_with_pull(
    findings: Findings, pull: str, scenario: Scenario, fate: Fate
) -> Iterator[str]:
    done = fate == "done"
    times = int(findings.items.get(f"ring#{pull}", {}).get("times", {"N": "0"})["N"])
    if times != int(done and scenario.writes):
        yield f"the second entity of {pull} was changed {times} times"
    for cls in (BellRang, WriteDown):
        ids = findings.sent.get((pull, cls.__name__), Counter())
        said = scenario.says and not (scenario.terse and cls is WriteDown)
        if len(ids) != int(done and said):
            yield f"{cls.__name__} of {pull} was sent under {len(ids)} ids: {dict(ids)}"
    if bool(findings.letters[pull]) != (fate == "dead letter"):
        yield f"{pull} has {findings.letters[pull]} dead letters"


def _wrong_with_record(scenario: Scenario, findings: Findings, pull: str) -> Iterator[str]:
    status = _status(scenario, findings, pull)
    record = findings.items.get(_record_of(scenario, pull), {})
    if scenario.fate == "dead letter" and "failures" in record:
        yield f"the record of {pull} still counts {record['failures']['N']} failures"
    (handler,) = scenario.service.handlers
    expected: list[str | None] = [None if handler.lease is None else "leased"]
    if scenario.fate == "done" and scenario.recorded:
        expected = ["done", "pending"] if pull in findings.unmarked else ["done"]
    if status not in expected:
        yield f"the record of {pull} says {status}, not {expected}"


def _status(scenario: Scenario, findings: Findings, pull: str) -> str | None:
    record = findings.items.get(_record_of(scenario, pull))
    return None if record is None else str(record["status"]["S"])


def _record_of(scenario: Scenario, pull: str) -> str:
    (handler,) = scenario.service.handlers
    return f"inbox#{handler.consumer}#{pull}"


# --- looking ---------------------------------------------------------------------------


async def _found(
    scenario: Scenario,
    ports: Ports,
    pulls: Sequence[RopePulled],
    unmarked: frozenset[str],
    sent_before: Sent,
    letters_before: Counter[str],
) -> Findings:
    """Takes the messages out of the queues of the chronicle and of the dead letters."""
    await _all_due(ports)
    sent: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for key, ids in sent_before.items():
        sent[key] += ids
    for metadata in await _taken(ports, chronicle.name):
        sent[metadata["correlation_id"], metadata["type"]][metadata["id"]] += 1
    letters = await _taken(ports, dead_letter_queue(scenario.queue))
    return Findings(
        left=await left(ports, scenario.queue),
        sent=sent,
        letters=letters_before + Counter(str(metadata["id"]) for metadata in letters),
        items=await _items(scenario, ports, pulls),
        unmarked=unmarked,
        parked=[parked async for parked in _parked(scenario, ports, pulls)],
    )


async def _parked(
    scenario: Scenario, ports: Ports, pulls: Sequence[RopePulled]
) -> AsyncIterator[str]:
    """The event ids of what waits behind a dead letter, in its order."""
    (handler,) = scenario.service.handlers
    if not handler.park:
        return
    yard = Yard(ports.store, ports.queues, ports.randomness, scenario.table)
    for bell in dict.fromkeys(pull.bell for pull in pulls):
        block = await yard.block(handler.consumer, bell)
        waiting = [] if block is None else await yard.parked(block)
        assert block is None or block.waiting == len(waiting)
        # Of a dead letter only the place is kept.
        for parked in (each for each in waiting if each.reason is None):
            yield str(json.loads(parked.entry.body)["detail"]["metadata"]["id"])


async def _all_due(ports: Ports) -> None:
    """Let come what waits for its time."""
    if isinstance(ports.scheduler, MemoryScheduler):
        ports.scheduler.due(datetime.max.replace(tzinfo=UTC))
    if (await ports.queues.depth(chronicle.name)).delayed:
        await asyncio.sleep(A_WHILE.total_seconds())


async def _taken(ports: Ports, queue: str) -> list[dict[str, Any]]:
    """The metadata of every message of a queue, which then has none."""
    metadata: list[dict[str, Any]] = []
    while messages := await ports.queues.receive(queue, limit=10, wait=timedelta(0)):
        metadata += [json.loads(message.body)["detail"]["metadata"] for message in messages]
        receipts = [message.receipt_handle for message in messages]
        assert await ports.queues.delete(queue, receipts) == []
    return metadata


async def _items(scenario: Scenario, ports: Ports, pulls: Sequence[RopePulled]) -> dict[str, Item]:
    names = [f"{kind}#{pull.bell}" for pull in pulls for kind in ("bell", "rival")]
    names += [f"ring#{pull.pull}" for pull in pulls]
    names += [_record_of(scenario, pull.pull) for pull in pulls]
    keys = [ItemKey(scenario.table, name, "-") for name in dict.fromkeys(names)]
    items: dict[str, Item] = {}
    for start in range(0, len(keys), BATCH_GET_KEYS):
        for item in await ports.store.get(keys[start : start + BATCH_GET_KEYS]):
            if item is not None:
                items[item["pk"]["S"]] = item
    return items
