"""One run of a simulation: from a seed to what was wrong, if anything was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, Final

from headrace.service import Service
from headrace.testing.simulation.chance import Chance, DrawnRandomness
from headrace.testing.simulation.checks import Checks, broken, name_of
from headrace.testing.simulation.cloud import Cloud
from headrace.testing.simulation.liberties import Liberties
from headrace.testing.simulation.loop import LoopClock, SimulatedLoop, simulated_loop
from headrace.testing.simulation.plan import Plan, Rollout, Run, Setting, Wrong
from headrace.testing.simulation.poison import poisons
from headrace.testing.simulation.ports import SERVICES
from headrace.testing.simulation.process import Place
from headrace.testing.simulation.quiet import undisturbed
from headrace.testing.simulation.trace import Kind, Trace
from headrace.testing.simulation.watch import Watch
from headrace.testing.simulation.world import World
from headrace.topology.derive import topology

CALM_AFTER: Final = 180.0
"""Seconds after the end of the scenario when nothing goes wrong any more, so that a run ends."""

LONGEST: Final = 4 * 3600.0
"""Seconds after that, until what is not settled never will be."""

ENDLESS: Final = 7 * 86400.0
"""Seconds until a scenario that does not settle is taken for one that never ends."""

_DEPLOY_WITHIN: Final = 8.0
_OVERLAP: Final = 8.0
_MINUTE: Final = 60.0


def run(setting: Setting, plan: Plan, *, traced: bool = False) -> Run:
    """Run a setting once. The same setting and plan give the same run, entry for entry, as long as
    the services take time and chance from their context only."""
    rates = setting.faults.drawn(Random(plan.seed ^ _RATES))
    if plan.calm:
        rates = dict.fromkeys(rates, 0.0)
    chance = Chance(plan.seed, rates, plan.allowed)
    loop = simulated_loop(plan.seed if plan.shuffled else None)
    trace = Trace(traced, loop.time)
    with undisturbed(loop, trace, plan.seed), loop:
        simulation = _Simulation(setting, plan, loop, chance, trace)
        wrong = loop.run_until_complete(simulation.play())
        if wrong is not None:
            trace.note("world", Kind.VIOLATION, f"{wrong.name}: {wrong.sentence}")
        # What is thrown away now has nothing to say any more.
        trace.on = False
    return Run(
        plan=plan,
        rates=rates,
        wrong=wrong,
        struck=tuple(chance.struck),
        sendings=simulation.world.sendings,
        seconds=loop.time(),
        entries=tuple(trace.entries),
    )


_RATES: Final = 0x5EED


class _Simulation:
    """The account, the processes and the scenario of one run."""

    def __init__(
        self, setting: Setting, plan: Plan, loop: SimulatedLoop, chance: Chance, trace: Trace
    ) -> None:
        self._setting = setting
        self._loop = loop
        self._chance = chance
        self._trace = trace
        self._cloud = Cloud(
            loop,
            LoopClock(loop),
            DrawnRandomness(chance.stream("world")),
            Liberties(chance, trace),
        )
        self._rollouts = [
            each if isinstance(each, Rollout) else Rollout(each, each) for each in setting.services
        ]
        self._places: list[Place] = []
        self._planned = 0
        self._watch = Watch(loop, trace)
        self._verdict: asyncio.Future[Wrong] = loop.create_future()
        self.world = World(
            [*dict.fromkeys(v for rollout in self._rollouts for v in rollout.versions)],
            self._cloud,
            chance,
            trace,
            plan.dropped,
            on_settling=self._settling,
            has_plans=lambda: self._planned > 0,
        )
        self._checks = Checks(
            setting, self.world, self._cloud, self._places, self._watch, self._verdict
        )

    # --- the run ---

    async def play(self) -> Wrong | None:
        """Play the scenario to its end, and look at what came out."""
        self._cloud.provision(topology(*(rollout.before for rollout in self._rollouts)))
        if self._setting.always:
            self._cloud.store.on_change = self._checks.after_a_write
        for rollout in self._rollouts:
            self._start(rollout)
        self._trouble()
        self._later(ENDLESS, self._end)
        scenario = asyncio.ensure_future(self._scenario())
        first: list[asyncio.Future[Any]] = [scenario, self._verdict]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if self._verdict.done():
            scenario.cancel()
            await asyncio.wait([scenario])
            return self._verdict.result()
        return scenario.result() or await self._checks.in_the_end()

    async def _scenario(self) -> Wrong | None:
        try:
            await self._setting.scenario(self.world)
        except AssertionError as error:
            return broken(name_of(self._setting.scenario), error)
        await self.world.settled()
        return None

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """While the world settles: the faults end some time, and so does our patience."""
        loop, chance = self._loop, self._chance
        calm = loop.call_as(loop.world, CALM_AFTER, self._heal)
        late = loop.call_as(loop.world, CALM_AFTER + LONGEST, self._give_up)
        try:
            yield
        finally:
            calm.cancel()
            late.cancel()
            chance.healed = False

    def _heal(self) -> None:
        self._trace.note("world", Kind.LOG, "from now on nothing goes wrong")
        self._chance.healed = True

    def _give_up(self) -> None:
        left = "; ".join(self.world.left()) or "something is still under way"
        if not self._verdict.done():
            self._verdict.set_result(Wrong("settled", f"It does not come to rest: {left}."))

    def _end(self) -> None:
        if not self._verdict.done():
            days = ENDLESS / 86400
            what = f"It has not ended after {days:.0f} days: does it wait for what never comes?"
            self._verdict.set_result(Wrong(name_of(self._setting.scenario), what))

    # --- what goes wrong around it ---

    def _start(self, rollout: Rollout) -> None:
        service = rollout.before
        workers = [self._place(service, number + 1) for number in range(self._setting.workers)]
        for place in workers:
            place.start()
        is_new = rollout.after is not rollout.before
        hard = self._chance.strikes("deploy")
        if hard is None and is_new:
            hard = self._chance.stream("rollout").random()
        if hard is not None:
            random = Random(int(hard * 2**53))
            self._plan(random.random() * _DEPLOY_WITHIN, self._deploy, rollout, workers, random)

    def _place(self, service: Service, number: int) -> Place:
        of = self._setting.resources.get(service.name)
        place = Place(
            f"{service.name}/{number}",
            service,
            None if of is None else partial(of, self.world),
            self._cloud,
            self._chance,
            self._trace,
            self._watch,
        )
        self._places.append(place)
        return place

    def _deploy(self, rollout: Rollout, old: Sequence[Place], random: Random) -> None:
        """Start new ones, then stop the old ones, one by one."""
        if rollout.after is not rollout.before:
            self._cloud.provision(topology(rollout.after))
        for number, place in enumerate(old):
            self._place(rollout.after, len(old) + number + 1).start()
            self._plan(random.random() * _OVERLAP, place.stop)

    def _trouble(self) -> None:
        for rollout in self._rollouts:
            self._poison(rollout.before)
        self._every_minute(self._outage)
        self._every_minute(self._sweep)

    def _every_minute(self, happens: Callable[[], None]) -> None:
        happens()
        self._later(_MINUTE, self._every_minute, happens)

    def _poison(self, service: Service) -> None:
        hard = self._chance.strikes("poison")
        if hard is not None:
            random = Random(int(hard * 2**53))
            queue = random.choice(service.queues)
            body = random.choice(poisons(service, queue, random))
            self._plan(random.random() * _DEPLOY_WITHIN, self._put_poison, queue, body)

    def _put_poison(self, queue: str, body: str) -> None:
        self._trace.note("world", Kind.FAULT, f"a message that nobody can read lies in {queue}")
        self.world.poison.append(body)
        self._cloud.put_poison(queue, body)

    def _outage(self) -> None:
        hard = self._chance.strikes("outage")
        if hard is None:
            return
        random = Random(int(hard * 2**53))
        service, seconds = random.choice(SERVICES), random.random() * _MINUTE
        self._trace.note("world", Kind.FAULT, f"{service} is down for {seconds:.0f} s")
        self._cloud.network.take_down(service, self._loop.time() + seconds)

    def _sweep(self) -> None:
        hard = self._chance.strikes("ttl")
        if hard is not None:
            self._later(hard * _MINUTE, self._expire)

    def _expire(self) -> None:
        for name in self._cloud.expire():
            self._trace.note("world", Kind.FAULT, f"DynamoDB deletes {name}, which expires soon")

    def _plan(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Let something happen later, and let nothing be settled before."""
        self._planned += 1

        def happen() -> None:
            self._planned -= 1
            callback(*args)

        self._later(delay, happen)

    def _later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_as(self._loop.world, delay, callback, *args)
