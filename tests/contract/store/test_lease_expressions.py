"""What a lease writes, as it writes it: claimed, renewed, released, counted and forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from headrace.errors import ConditionFailed, LeaseHeld, LeaseLost
from headrace.group import GroupCommit
from headrace.inbox import Committed, Inbox
from headrace.lease import Lease
from headrace.ports import Action, Item, ItemKey, Ports, Put
from headrace.record import milliseconds
from headrace.testing.memory import ManualClock, SeededRandomness
from tests.contract.topologies import TWO_TABLES
from tests.contract.world import World

HOUR = timedelta(hours=1)
RECORD = ItemKey("accounts", "inbox#accounts.pay#e-1", "-")


@dataclass
class Till:
    """The records of a consumer, and whoever wants the lease on one of them."""

    ports: Ports
    clock: ManualClock = field(default_factory=ManualClock)
    randomness: SeededRandomness = field(default_factory=SeededRandomness)

    @property
    def inbox(self) -> Inbox:
        group = GroupCommit(self.ports.store, self.randomness)
        return Inbox(
            self.ports.store, group, self.clock, self.randomness, table="accounts", keep=24 * HOUR
        )

    def lease(self) -> Lease:
        return Lease(
            self.ports.store,
            self.inbox,
            self.clock,
            self.randomness,
            consumer="accounts.pay",
            event_id="e-1",
            time=HOUR,
        )

    async def taken(self) -> Lease:
        lease = self.lease()
        assert await lease.take() is None
        return lease

    async def record(self) -> Item:
        [item] = await self.ports.store.get([RECORD])
        assert item is not None
        return item

    async def complete(self, lease: Lease, *actions: Action) -> Committed:
        record = self.inbox.new_record("accounts.pay", "e-1")
        return await self.inbox.commit(record, actions, holder=lease.holder)


async def open_till(world: World) -> Till:
    await world.provision(TWO_TABLES)
    return Till(world.ports)


def held_until(till: Till, after: timedelta) -> Any:
    return {"N": milliseconds(till.clock.now() + after)}


LEASED = {"pk", "sk", "commit_id", "status", "expires_at", "holder", "held_until"}


async def test_a_lease_is_taken_where_nothing_stands(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    record = await till.record()
    assert record.keys() == LEASED
    assert record["status"] == {"S": "leased"}
    assert record["holder"] == {"S": lease.holder}
    assert record["held_until"] == held_until(till, HOUR)


async def test_a_lease_that_is_held_is_refused_with_the_time_that_is_left(world: World) -> None:
    till = await open_till(world)
    await till.taken()
    till.clock.advance(HOUR / 4)
    with pytest.raises(LeaseHeld) as held:
        await till.lease().take()
    assert held.value.delay == HOUR * 3 / 4


async def test_a_lease_that_was_taken_already_is_known_by_its_holder(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    assert await lease.take() is None


async def test_a_lease_is_renewed_before_it_is_used_late(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    till.clock.advance(HOUR / 2)
    async with lease.kept():
        assert (await till.record())["held_until"] == held_until(till, HOUR)


async def test_a_renewal_never_makes_a_lease_shorter(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    stuck = lease._renewal(till.clock.now() + HOUR / 2)
    with pytest.raises(ConditionFailed):
        await till.ports.store.change(stuck)
    assert (await till.record())["held_until"] == held_until(till, HOUR)


async def test_a_lease_stays_that_of_a_holder_whose_clock_was_put_back(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    till.clock.advance(HOUR / 2)
    async with lease.kept():
        later = held_until(till, HOUR)
    assert (await till.record())["held_until"] == later
    lease._clock = ManualClock()
    lease._until = lease._clock.now()
    async with lease.kept():
        assert (await till.record())["held_until"] == later


async def test_a_lease_that_another_has_taken_is_not_renewed(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    till.clock.advance(2 * HOUR)
    other = await till.taken()
    with pytest.raises(LeaseLost):
        async with lease.kept():
            pytest.fail("It is not held any more.")
    assert (await till.record())["holder"] == {"S": other.holder}


async def test_a_lease_that_is_released_can_be_taken_at_once(world: World) -> None:
    till = await open_till(world)
    await (await till.taken()).release()
    record = await till.record()
    assert record.keys() == LEASED - {"holder"}
    assert record["held_until"] == {"N": "0"}
    await till.taken()


async def test_failures_are_counted_from_lease_to_lease(world: World) -> None:
    till = await open_till(world)
    counts = []
    for _ in range(3):
        lease = await till.taken()
        await lease.release(failed=True)
        counts.append(lease.failures)
        await (await till.taken()).release()
    assert counts == [1, 2, 3]
    assert (await till.record())["failures"] == {"N": "3"}


async def test_a_failure_is_counted_once_however_often_it_is_said(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    for _ in range(3):
        await lease.release(failed=True)
    assert lease.failures == 1


async def test_a_failure_of_what_is_still_at_work_is_counted_and_keeps_the_lease(
    world: World,
) -> None:
    till = await open_till(world)
    lease = await till.taken()
    await lease.release(failed=True, at_work=True)
    assert lease.failures == 1
    assert (await till.record())["held_until"] == held_until(till, HOUR)
    with pytest.raises(LeaseHeld):
        await till.lease().take()


async def test_a_lease_that_another_has_taken_is_not_released(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    till.clock.advance(2 * HOUR)
    other = await till.taken()
    await lease.release(failed=True)
    record = await till.record()
    assert record["holder"] == {"S": other.holder}
    assert "failures" not in record


async def test_failures_are_forgotten(world: World) -> None:
    till = await open_till(world)
    lease = await till.taken()
    await lease.release(failed=True)
    await lease.forget()
    assert "failures" not in await till.record()


async def test_where_nothing_stands_nothing_is_forgotten(world: World) -> None:
    till = await open_till(world)
    await till.lease().forget()
    assert await till.ports.store.get([RECORD]) == [None]


@pytest.mark.parametrize("effects", [0, 1])
async def test_a_lease_is_completed_by_its_holder_alone(world: World, effects: int) -> None:
    """In a transaction, if there is something to write; else by itself."""
    till = await open_till(world)
    effect = Put("payments", {"pk": {"S": "p-1"}, "sk": {"S": "-"}})
    late = await till.taken()
    await late.release(failed=True)
    lease = await till.taken()
    with pytest.raises(LeaseLost):
        await till.complete(late, *[effect] * effects)
    assert not (await till.complete(lease, *[effect] * effects)).duplicate
    record = await till.record()
    assert record["status"] == {"S": "done"}
    assert record.keys() == LEASED - {"holder", "held_until"}


async def test_who_asks_for_a_lease_is_told_what_was_committed(world: World) -> None:
    till = await open_till(world)
    await till.complete(await till.taken())
    standing = await till.lease().take()
    assert standing is not None
    assert standing.duplicate
    assert standing.record.done


async def test_a_lease_leaves_nothing_of_a_record_that_is_over(world: World) -> None:
    till = await open_till(world)
    over: Item = {
        **RECORD.attributes(),
        "commit_id": {"S": "of old"},
        "status": {"S": "pending"},
        "outgoing": {"L": []},
        "expires_at": {"N": str(int(till.clock.now().timestamp()) - 1)},
    }
    await till.ports.store.write([Put("accounts", over)])
    await till.taken()
    record = await till.record()
    assert record.keys() == LEASED
    assert record["commit_id"] != {"S": "of old"}
    assert int(record["expires_at"]["N"]) > till.clock.now().timestamp()
