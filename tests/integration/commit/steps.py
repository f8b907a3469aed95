"""The steps of a delivery as calls to AWS, and which of these calls meet a fault."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.integration.commit.emulated_mill import EmulatedMill
from tests.integration.commit.mill import SackSeen, SackWeighed, Told
from tests.integration.commit.proxy import Decide, Fault


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a delivery, and the operations that can be its call to AWS. The mill is told of
    events of the `told` kind."""

    name: str
    operations: frozenset[str]
    told: type[SackWeighed] | type[SackSeen] = SackWeighed

    def __str__(self) -> str:
        return self.name


WRITES = frozenset({"TransactWriteItems", "PutItem", "UpdateItem"})
COMMIT = Step("commit", WRITES)
RECORD = Step("commit of a record alone", WRITES, SackSeen)
EVENTS = Step("dispatch of events", frozenset({"PutEvents"}))
COMMANDS = Step("dispatch of commands", frozenset({"SendMessageBatch"}))
MARK = Step("done-mark", frozenset({"BatchWriteItem"}))
DELETE = Step("delete", frozenset({"DeleteMessageBatch"}))
RECEIVE = Step("receive", frozenset({"ReceiveMessage"}))
HIDE = Step("hide", frozenset({"ChangeMessageVisibilityBatch"}))
READ = Step("read", frozenset({"BatchGetItem"}))
STORE = Step("all of DynamoDB", WRITES | READ.operations | MARK.operations)

every_step = pytest.mark.parametrize(
    "step", [COMMIT, RECORD, EVENTS, COMMANDS, MARK, DELETE, RECEIVE, READ], ids=str
)


async def told_of(mill: EmulatedMill, kind: type[SackWeighed] | type[SackSeen]) -> None:
    """Four sacks, two for each of two hoppers."""
    sacks: dict[str, Told] = {f"s-{n}": kind(hopper=f"hopper {n % 2}") for n in range(4)}
    await mill.tell(**sacks)


def first(count: int, step: Step, fault: Fault) -> Decide:
    """So many requests of a step meet the fault, and all later ones do not."""
    left = count

    def decide(operation: str) -> Fault | None:
        nonlocal left
        if operation not in step.operations or left == 0:
            return None
        left -= 1
        return fault

    return decide


def until_settled(mill: EmulatedMill, step: Step, fault: Fault, *, after: Step = COMMIT) -> Decide:
    """Every request of a step meets the fault until one delivery is over, from when on none does.
    The first delivery to be over has thus not had a single answer in this step. Reads are left
    alone before the step that they come `after`."""
    begun = not step.operations & READ.operations

    def decide(operation: str) -> Fault | None:
        nonlocal begun
        begun = begun or operation in after.operations
        if mill.watch.any_settled or not begun or operation not in step.operations:
            return None
        return fault

    return decide


def until_it_comes_again(mill: EmulatedMill, step: Step, fault: Fault) -> Decide:
    """Every request of a step meets the fault until a message was handled for the second time. For
    what is told SQS after a delivery is over, by then as often as it is tried."""

    def decide(operation: str) -> Fault | None:
        again = any(delivery.receive_count > 1 for delivery, _ in mill.watch.outcomes)
        return None if again or operation not in step.operations else fault

    return decide


def faults_in(mill: EmulatedMill, step: Step) -> int:
    return sum(mill.proxy.faults[operation] for operation in step.operations)
