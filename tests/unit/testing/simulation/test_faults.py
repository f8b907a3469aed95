"""What goes wrong in a simulation: every kind of fault happens, and is felt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from headrace import Command, Entity, Event, RetryLater, Service, Transaction
from headrace.connection import Connection
from headrace.errors import AlreadyDone, ConfigurationError
from headrace.ports import Put
from headrace.record import RELAY_INDEX, RELAY_SHARDS, shard
from headrace.testing import Faults, World, simulate
from headrace.testing.simulation import KINDS
from headrace.testing.simulation.loop import START
from headrace.testing.simulation.plan import Plan, Run, Setting
from headrace.testing.simulation.run import run
from headrace.testing.simulation.trace import Entry, Kind


class RaiseBridge(Command, owner="bridge"):
    ship: str


class BridgeRaised(Event, source="harbour.bridge"):
    ship: str


class SoundHorn(Command, owner="bridge"):
    ship: str


class Passage(Entity, pk="passage#{ship}"):
    ship: str
    raised: int = 0


CALM = Faults.none()


class Keeper:
    """Notes what every run of a handler has been through, whatever becomes of it."""

    def __init__(self, aws: World) -> None:
        self.aws = aws
        self.notes = aws.ledger("notes")

    async def sound_horn(self, ship: str) -> None:
        await self.aws.outside("horn", partial(self.aws.ledger("horn").append, ship))


@asynccontextmanager
async def open_keeper(aws: World) -> AsyncIterator[Keeper]:
    yield Keeper(aws)


def nobody() -> Keeper:
    raise AssertionError("A simulation opens its own.")


@asynccontextmanager
async def open_nothing() -> AsyncIterator[Keeper]:
    yield nobody()


bridge = Service("bridge", bus="harbour", resources=open_nothing, emits=[BridgeRaised])


@bridge.on(RaiseBridge)
async def raise_bridge(command: RaiseBridge, tx: Transaction, keeper: Keeper) -> BridgeRaised:
    began = keeper.aws.now()
    passage = await tx.get(Passage, command.ship) or Passage(ship=command.ship)
    passage.raised += 1
    tx.put(passage)
    keeper.notes.append((began, keeper.aws.now()))
    return BridgeRaised(ship=command.ship)


@bridge.on(SoundHorn, idempotent=True)
async def sound_horn(command: SoundHorn, keeper: Keeper) -> None:
    heard = keeper.aws.ledger("horn")
    before = heard.count(command.ship)
    try:
        await keeper.sound_horn(command.ship)
    except ConnectionError as error:
        # Not a failure of the message, of which there may be so many only.
        keeper.notes.append((str(error), heard.count(command.ship) - before))
        raise RetryLater(str(error), delay=timedelta(seconds=10)) from error


SHIPS = [f"ship-{number}" for number in range(5)]


async def ships_come(aws: World) -> None:
    await aws.send(*(RaiseBridge(ship=ship) for ship in SHIPS))


async def ships_come_for_minutes(aws: World) -> None:
    for ship in SHIPS:
        await aws.send(RaiseBridge(ship=ship))
        await asyncio.sleep(30)


async def ships_sound_their_horns(aws: World) -> None:
    for ship in SHIPS:
        await aws.send(SoundHorn(ship=ship))
        await asyncio.sleep(10)


def every_ship_has_passed_once(aws: World) -> None:
    passed = [(passage.ship, passage.raised) for passage in aws.all(Passage, bridge)]
    assert passed == [(ship, 1) for ship in SHIPS]
    assert sorted(event.ship for event in aws.published(BridgeRaised)) == SHIPS


SHIPS_PASS = (ships_come, ships_come_for_minutes)


class Felt:
    """A run under one kind of fault, and the world at its end."""

    def __init__(
        self,
        scenario: Callable[[World], Awaitable[None]],
        faults: Faults = CALM,
        *,
        seed: int = 0,
        shuffled: bool = True,
    ) -> None:
        worlds: list[World] = []
        passing = [every_ship_has_passed_once] if scenario in SHIPS_PASS else []
        setting = Setting(
            (bridge,),
            scenario,
            (worlds.append, *passing),
            faults=faults,
            resources={"bridge": open_keeper},
            workers=1,
        )
        self.run: Run = run(setting, Plan(seed, shuffled=shuffled), traced=True)
        assert self.run.wrong is None
        assert {fault.kind for fault in self.run.struck} == {
            kind for kind, rate in faults.rates().items() if rate
        }
        self.aws = worlds[0]
        self.notes: list[Any] = self.aws.ledger("notes")

    def said(self, words: str, *kinds: Kind) -> list[Entry]:
        return [e for e in self.run.entries if words in e.text and (not kinds or e.kind in kinds)]

    def received(self, words: str = "receives RaiseBridge") -> list[Entry]:
        return self.said(words, Kind.RECEIVED)


# --- the setting ---


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_is_a_probability(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="a rate is a probability"):
        Faults(crash=rate)


def test_a_rate_is_a_probability_for_the_only_fault_too() -> None:
    with pytest.raises(ConfigurationError, match="a rate is a probability"):
        Faults.only(crash=2)


@pytest.mark.parametrize(
    "given", [lambda: Faults.only(crush=0.1), lambda: Faults().without("crush")]
)
def test_a_fault_that_there_is_not_is_named_beside_those_that_there_are(
    given: Callable[[], Faults],
) -> None:
    with pytest.raises(ConfigurationError, match=r"no fault 'crush': choose from .*crash"):
        given()


def test_none_and_only_and_without_are_what_they_say() -> None:
    assert set(Faults.none().rates().values()) == {0.0}
    only = Faults.only(crash=0.5, delay=1.0)
    assert {kind: rate for kind, rate in only.rates().items() if rate} == {
        "crash": 0.5,
        "delay": 1.0,
    }
    without = Faults().without("crash", "delay").rates()
    assert {kind for kind, rate in without.items() if not rate} == {"crash", "delay"}
    assert without["pause"] == Faults().pause


def test_every_fault_is_on_unless_told_otherwise() -> None:
    assert all(Faults().rates().values())
    assert tuple(Faults().rates()) == KINDS


def rates(seed: int, faults: Faults) -> dict[str, float]:
    return faults.drawn(Random(seed))


def test_mixed_faults_differ_from_seed_to_seed_and_not_from_run_to_run() -> None:
    drawn = [rates(seed, Faults()) for seed in range(20)]
    assert drawn == [rates(seed, Faults()) for seed in range(20)]
    assert len({tuple(each.values()) for each in drawn}) == 20


def test_mixed_faults_come_and_stay_away_in_every_combination() -> None:
    drawn = [rates(seed, Faults()) for seed in range(200)]
    for kind, rate in Faults().rates().items():
        found = [each[kind] for each in drawn]
        assert 0.0 in found
        assert min(filter(None, found)) < rate < max(found) <= min(1.0, 4 * rate)


def test_a_fault_that_is_off_is_never_drawn() -> None:
    faults = Faults().without("crash")
    assert {rates(seed, faults)["crash"] for seed in range(50)} == {0.0}


def test_faults_that_are_not_mixed_are_the_same_in_every_run() -> None:
    faults = Faults.only(crash=0.3)
    assert all(rates(seed, faults) == faults.rates() for seed in range(20))


def test_what_runs_under_a_seed_has_the_rates_of_that_seed() -> None:
    setting = Setting((bridge,), ships_come, resources={"bridge": open_keeper})
    first, again, other = (run(setting, Plan(seed)) for seed in (1, 1, 2))
    assert first.rates == again.rates != other.rates


# --- what SQS, EventBridge and DynamoDB do within their contract ---


def test_duplicate_a_message_is_handled_again_and_takes_effect_once() -> None:
    felt = Felt(ships_come, Faults.only(duplicate=0.5))
    assert len(felt.received()) > len(SHIPS)
    assert felt.said("for the 2nd time")
    assert felt.said("after it was deleted")


def test_duplicate_a_handler_without_a_record_handles_it_again() -> None:
    felt = Felt(ships_sound_their_horns, Faults.only(duplicate=1.0))
    assert len(felt.aws.ledger("horn")) > len(SHIPS)


def test_duplicate_a_rule_gives_an_event_to_a_queue_twice() -> None:
    gull = Service("gull", bus="harbour")

    @gull.on(BridgeRaised)
    async def scream(event: BridgeRaised) -> None:
        return None

    async def a_bridge_is_raised(aws: World) -> None:
        await aws.publish(BridgeRaised(ship="ship-0"))

    setting = Setting((gull,), a_bridge_is_raised, faults=Faults.only(duplicate=1.0))
    found = run(setting, Plan(0), traced=True)
    assert found.wrong is None
    assert [entry for entry in found.entries if "is given BridgeRaised twice" in entry.text]


def order_of_ships(faults: Faults) -> list[int]:
    felt = Felt(ships_come, faults, shuffled=False)
    sent = [entry.about[0] for entry in felt.said("sends RaiseBridge", Kind.SENT)]
    return [sent.index(entry.about[0]) for entry in felt.received()]


def test_reorder_messages_come_in_another_order() -> None:
    assert order_of_ships(CALM) == [0, 1, 2, 3, 4]
    reordered = order_of_ships(Faults.only(reorder=1.0))
    assert reordered != [0, 1, 2, 3, 4]
    assert sorted(reordered) == [0, 1, 2, 3, 4]


def test_delay_messages_come_late() -> None:
    late = Felt(ships_come, Faults.only(delay=1.0))
    assert max(entry.at for entry in late.received()) > 5
    assert len({round(entry.at) for entry in late.received()}) > 2
    assert max(entry.at for entry in Felt(ships_come).received()) < 1


async def known_to_the_index(service: Connection) -> int:
    """Commit something to send, and look at once whether the relay would see it."""
    try:
        async with service.transaction(key="a-passage") as tx:
            tx.publish(BridgeRaised(ship="ship-0"))
    except AlreadyDone:
        return -1
    query = partial(service.ports.store.query, "bridge", index=RELAY_INDEX)
    shards = (shard("bridge", number) for number in range(RELAY_SHARDS))
    pages = await asyncio.gather(*(query(pk=name) for name in shards))
    return sum(len(page.items) for page in pages)


STALE = Faults.only(stale_index=1.0)


def seen_in_index(seed: int, faults: Faults = CALM) -> int:
    answers: list[int | None] = []

    async def a_request(aws: World) -> None:
        answers.append(await aws.request(bridge, known_to_the_index))

    Felt(a_request, faults, seed=seed)
    [answer] = answers
    assert answer is not None
    return answer


def test_stale_index_an_index_does_not_know_what_was_just_committed() -> None:
    assert [seen_in_index(seed) for seed in (1, 2, 3)] == [1, 1, 1]
    assert [seen_in_index(seed, STALE) for seed in (1, 2, 3)] == [0, 0, 0]


async def permits_run_out(aws: World) -> None:
    now = int(aws.now().timestamp())
    permits = {"gone": now - 60, "soon": now + 1800, "kept": now + 2 * 3600}
    await aws.request(bridge, partial(write_permits, permits))
    await asyncio.sleep(130)


async def write_permits(permits: dict[str, int], service: Connection) -> None:
    async with service.transaction() as tx:
        for name, at in permits.items():
            item = {"pk": {"S": f"permit#{name}"}, "sk": {"S": "-"}, "expires_at": {"N": str(at)}}
            tx.write(Put("bridge", item))


def permits_left(felt: Felt) -> list[str]:
    return [item["pk"]["S"] for item in felt.aws.items(bridge)]


def test_ttl_what_expires_is_gone_even_some_minutes_early() -> None:
    felt = Felt(permits_run_out, Faults.only(ttl=1.0))
    assert permits_left(felt) == ["permit#kept"]
    assert felt.said("DynamoDB deletes permit#soon")
    assert len(permits_left(Felt(permits_run_out))) == 3


# --- calls that fail ---


def test_timeout_a_call_has_no_effect_and_its_caller_hears_nothing() -> None:
    felt = Felt(ships_sound_their_horns, Faults.only(timeout=0.4))
    assert {effects for _, effects in felt.notes} == {0}
    assert "timed out" in felt.notes[0][0]
    assert felt.said("horn does not arrive")


def test_lost_answer_a_call_has_its_effect_and_its_caller_hears_nothing() -> None:
    felt = Felt(ships_sound_their_horns, Faults.only(lost_answer=0.4))
    assert max(effects for _, effects in felt.notes) > 0
    assert "timed out" in felt.notes[0][0]
    assert len(felt.aws.ledger("horn")) > len(SHIPS)


def test_late_a_call_has_its_effect_after_its_caller_has_given_up() -> None:
    felt = Felt(ships_sound_their_horns, Faults.only(late=0.4), seed=1)
    assert {effects for _, effects in felt.notes} == {0}
    assert len(felt.aws.ledger("horn")) >= len(SHIPS) + len(felt.notes)
    given_up, arrived = felt.said("horn times out"), felt.said("horn arrives late")
    assert len(given_up) == len(arrived) == len(felt.notes) > 0
    assert min(entry.at for entry in arrived) > min(entry.at for entry in given_up) + 5


def test_late_a_transaction_whose_handler_has_given_up_finds_its_record_in_its_way() -> None:
    for seed in range(5):
        felt = Felt(ships_come_for_minutes, Faults.only(late=0.3), seed=seed)
        zombies = [e for e in felt.said("may not write") if "ConditionalCheckFailed" in e.text]
        if zombies:
            return
    pytest.fail("No transaction was late enough.")


def test_throttle_a_call_is_refused_and_made_again() -> None:
    felt = Felt(ships_come, Faults.only(throttle=0.4))
    assert felt.said("ReceiveMessage is throttled")
    assert felt.said("for the 2nd time")


def test_conflict_a_handler_runs_again_within_one_delivery() -> None:
    felt = Felt(ships_come, Faults.only(conflict=0.6))
    assert felt.said("is cancelled: a conflict")
    assert len(felt.notes) > len(felt.received())


def test_partial_what_failed_of_a_batch_is_sent_again() -> None:
    felt = Felt(ships_come, Faults.only(partial=0.7))
    failed = felt.said("PutEvents") + felt.said("DeleteMessageBatch")
    assert [entry for entry in failed if "of" in entry.text and "entries" in entry.text]
    assert felt.said("fails for")
    assert max(e.at for e in felt.said("puts BridgeRaised", Kind.SENT)) > min(
        e.at for e in felt.said("fails for")
    )


def test_outage_a_service_of_aws_does_not_answer_for_some_time() -> None:
    felt = Felt(ships_come_for_minutes, Faults.only(outage=1.0))
    assert felt.said("is down for", Kind.FAULT)
    downs = [entry for seed in range(4) for entry in answers_under_outage(seed)]
    assert downs


def answers_under_outage(seed: int) -> list[Entry]:
    async def requests(aws: World) -> None:
        for number in range(12):
            await aws.request(bridge, partial(pass_by, str(number)))
            await asyncio.sleep(5)

    return Felt(requests, Faults.only(outage=1.0), seed=seed).said(
        "is down: it may or may not", Kind.LOG
    )


async def pass_by(key: str, service: Connection) -> None:
    async with service.transaction(key=key) as tx:
        tx.put(Passage(ship=key))


# --- processes ---


def test_crash_a_process_dies_and_is_started_again() -> None:
    felt = Felt(ships_come_for_minutes, Faults.only(crash=0.05))
    assert felt.said("the process dies", Kind.FAULT)
    starts = [entry.at for entry in felt.said("starts", Kind.PROCESS)]
    deaths = [entry.at for entry in felt.said("the process dies", Kind.FAULT)]
    for death, start in zip(deaths, starts[1:], strict=False):
        assert death < start < death + 6
        alone = [e for e in felt.run.entries if e.lane == "bridge/1" and death < e.at < start]
        # What was on its way arrives, and that is all.
        assert {e.kind for e in alone} <= {Kind.RECEIVED, Kind.WRITTEN, Kind.SENT, Kind.SETTLED}


def test_expiry_a_message_comes_again_while_it_is_handled() -> None:
    slow = Service("tug", bus="harbour")
    runs: list[float] = []

    @slow.on(PullShip)
    async def pull(command: PullShip) -> None:
        runs.append(asyncio.get_running_loop().time())
        await asyncio.sleep(10)

    async def one_ship(aws: World) -> None:
        await aws.send(PullShip(ship="ship-0"))

    setting = Setting((slow,), one_ship, faults=Faults.only(expiry=1.0), workers=1)
    found = run(setting, Plan(0), traced=True)
    assert found.wrong is None
    assert {fault.kind for fault in found.struck} == {"expiry"}
    assert len(runs) > 1
    assert runs[1] - runs[0] < 5


class PullShip(Command, owner="tug"):
    ship: str


def reads(felt: Felt) -> list[float]:
    """Seconds that each run of the handler took to read."""
    return [(ended - began).total_seconds() for began, ended in felt.notes]


def test_pause_a_process_stands_still_within_a_handler() -> None:
    felt = Felt(ships_come, Faults.only(pause=0.5))
    assert felt.said("the process stands still", Kind.FAULT)
    assert max(reads(felt)) > 1
    assert max(reads(Felt(ships_come))) < 1


def around_reads(felt: Felt) -> tuple[float, float]:
    """Seconds from receiving a ship to its first read, and from its last one to its writes."""
    received, written = felt.received()[0].at, felt.said("passage#", Kind.WRITTEN)[0].at
    [(began, ended)] = [
        ((b - START).total_seconds(), (e - START).total_seconds()) for b, e in felt.notes
    ]
    return began - received, written - ended


async def one_ship_comes(aws: World) -> None:
    await aws.send(RaiseBridge(ship="ship-0"))


def test_slow_handler_a_handler_takes_longer_before_its_reads_and_after_them() -> None:
    before, after = around_reads(Felt(one_ship_comes, Faults.only(slow_handler=1.0)))
    assert before > 1
    assert after > 1
    assert max(around_reads(Felt(one_ship_comes))) < 0.5


def seconds_off(seed: int, faults: Faults = CALM) -> float:
    answers: list[Any] = []

    async def what_time_is_it(service: Connection) -> float:
        return service.ports.clock.now().timestamp()

    async def ask(aws: World) -> None:
        answers.append(await aws.request(bridge, what_time_is_it))
        answers.append(aws.now().timestamp())

    Felt(ask, faults, seed=seed)
    return float(answers[0] - answers[1])


def test_skew_the_clock_of_a_process_is_off_by_up_to_two_seconds() -> None:
    off = [seconds_off(seed, Faults.only(skew=1.0)) for seed in range(8)]
    assert max(off) > 0.2
    assert min(off) < -0.2
    assert max(map(abs, off)) < 2.5
    assert abs(seconds_off(0)) < 0.2


def test_deploy_new_processes_start_beside_the_old_ones_which_stop() -> None:
    felt = Felt(ships_come_for_minutes, Faults.only(deploy=1.0))
    told = {e.text: (e.lane, e.at) for e in felt.run.entries if e.kind is Kind.PROCESS}
    old, new = "bridge/1", "bridge/2"
    starts = {e.lane: e.at for e in felt.said("starts", Kind.PROCESS)}
    assert set(starts) == {old, new}
    assert told["is told to stop"][0] == told["has stopped"][0] == old
    assert starts[new] < told["is told to stop"][1] < starts[new] + 10
    assert {e.lane for e in felt.received()} == {old, new}


# --- what is sent ---


def test_poison_a_message_that_nobody_can_read_becomes_a_dead_letter() -> None:
    felt = Felt(ships_come_for_minutes, Faults.only(poison=1.0))
    assert felt.said("a message that nobody can read lies in bridge", Kind.FAULT)
    assert [letter.body for letter in felt.aws.dead_letters(bridge)] == felt.aws.poison


def test_poison_comes_in_many_forms() -> None:
    forms = {
        Felt(ships_come_for_minutes, Faults.only(poison=1.0), seed=seed).aws.poison[0][:9]
        for seed in range(12)
    }
    assert len(forms) > 2


# --- all of them ---


async def much_happens(aws: World) -> None:
    """An occasion for every kind of fault."""
    for ship in SHIPS:
        await aws.send(RaiseBridge(ship=ship), SoundHorn(ship=ship))
        await aws.request(bridge, partial(pass_with_notice, ship))
        await asyncio.sleep(10)


async def pass_with_notice(ship: str, service: Connection) -> None:
    try:
        async with service.transaction(key=ship) as tx:
            tx.publish(BridgeRaised(ship=ship))
    except AlreadyDone:
        return


# What expires is not there by itself; it has a test of its own.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ttl"])
def test_a_kind_that_is_alone_happens_and_no_other_does(kind: str) -> None:
    report = simulate(
        [bridge],
        much_happens,
        seeds=3,
        faults=Faults.only(**{kind: 0.25}),
        resources={bridge: open_keeper},
        workers=1,
    )
    assert set(report.faults) == {kind}


def test_without_faults_nothing_goes_wrong() -> None:
    report = simulate(
        [bridge], much_happens, seeds=3, faults=Faults.none(), resources={bridge: open_keeper}
    )
    assert report.faults == {}


def test_where_every_call_fails_a_message_is_spared_after_some_receives() -> None:
    every_call = Felt(ships_come, Faults.only(timeout=1.0))
    assert every_call.said("does not arrive")
    for ship in SHIPS:
        assert every_call.aws.find(Passage, ship, service=bridge) is not None


def test_faults_end_so_that_a_run_does() -> None:
    async def one_request(aws: World) -> None:
        working = asyncio.create_task(aws.request(bridge, partial(pass_with_notice, "ship-0")))
        await asyncio.sleep(1)
        await aws.settled()
        await working

    every_call = Felt(one_request, Faults.only(timeout=1.0))
    (calm,) = every_call.said("from now on nothing goes wrong")
    assert max(fault.at for fault in every_call.said("does not arrive")) <= calm.at
    assert min(entry.at for entry in every_call.said("writes the record")) > calm.at


RATES = st.dictionaries(st.sampled_from(KINDS), st.floats(0, 0.05), max_size=6)


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(chosen=RATES, mixed=st.booleans(), seed=st.integers(0, 2**32), workers=st.integers(1, 3))
def test_the_same_seed_and_faults_give_the_same_run(
    chosen: dict[str, float], mixed: bool, seed: int, workers: int
) -> None:
    setting = Setting(
        (bridge,),
        much_happens,
        faults=Faults(**{**Faults.none().rates(), **chosen}, mixed=mixed),
        resources={"bridge": open_keeper},
        workers=workers,
    )
    first, again = (run(setting, Plan(seed), traced=True) for _ in range(2))
    assert first == again
    untold = run(setting, Plan(seed))
    assert replace(first, entries=()) == untold


def test_a_run_that_allows_only_what_happened_is_the_same_run() -> None:
    setting = Setting((bridge,), much_happens, resources={"bridge": open_keeper})
    for seed in range(5):
        found = run(setting, Plan(seed), traced=True)
        plan = Plan(seed, allowed=frozenset(found.struck))
        assert run(setting, plan, traced=True) == replace(found, plan=plan)
