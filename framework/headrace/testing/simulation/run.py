"""One run of a simulation: from a seed to what was wrong, if anything was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

from headrace.service import Service
from headrace.testing.simulation.chance import Chance, DrawnRandomness, Fault
from headrace.testing.simulation.checks import Checks, broken, name_of
from headrace.testing.simulation.cloud import Cloud
from headrace.testing.simulation.liberties import Liberties
from headrace.testing.simulation.loop import LoopClock, SimulatedLoop, simulated_loop
from headrace.testing.simulation.plan import Plan, Rollout, Run, Setting, Wrong
from headrace.testing.simulation.poison import poisons
from headrace.testing.simulation.ports import DYNAMODB
from headrace.testing.simulation.process import Place, is_of_network
from headrace.testing.simulation.quiet import undisturbed
from headrace.testing.simulation.trace import Kind, Trace
from headrace.testing.simulation.watch import Watch
from headrace.testing.simulation.world import World
from headrace.topology.derive import topology

CALM_AFTER: Final = 180.0
"""Seconds in which nothing was sent, committed or acknowledged, after which nothing goes wrong any
more while everything settles, so that a run ends."""

LONGEST: Final = 4 * 3600.0
"""Seconds after that, and after whatever is due later, until what is not settled never will be."""

ENDLESS: Final = 86400.0
"""Seconds without any progress until a scenario that does not settle is taken for one that never
ends."""

_HOUR: Final = 3600.0

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


@dataclass(slots=True)
class _Settling:
    """One time of waiting until everything is settled."""

    over: bool = False


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
        self._progress = 0.0
        loop.set_exception_handler(self._unexpected)
        self._watch = Watch(loop, trace, self._go_on)
        self._verdict: asyncio.Future[Wrong] = loop.create_future()
        self.world = World(
            [*dict.fromkeys(v for rollout in self._rollouts for v in rollout.versions)],
            self._cloud,
            chance,
            trace,
            plan.dropped,
            on_settling=self._settling,
            is_at_work=self._is_at_work,
            on_progress=self._go_on,
        )
        self._checks = Checks(setting, self.world, self._cloud, self._watch, self._verdict)

    # --- the run ---

    async def play(self) -> Wrong | None:
        """Play the scenario to its end, and look at what came out."""
        self._cloud.provision(topology(*(rollout.before for rollout in self._rollouts)))
        self._cloud.store.on_change = self._after_a_write
        self._cloud.queues.on_missing = self._send_to_nobody
        for rollout in self._rollouts:
            self._start(rollout)
        self._trouble()
        self._later(_HOUR, self._end)
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
        settling = _Settling()
        self._go_on()
        self._later(CALM_AFTER, self._calm_down, settling)
        try:
            yield
        finally:
            settling.over = True
            self._chance.healed = False

    def _calm_down(self, settling: _Settling) -> None:
        """Let nothing go wrong any more, unless there was something to go wrong just now."""
        left = self._progress + CALM_AFTER - self._loop.time()
        if settling.over:
            return
        if left > 0:
            self._later(left, self._calm_down, settling)
            return
        self._trace.note("world", Kind.LOG, "from now on nothing goes wrong")
        self._chance.healed = True
        self._later(LONGEST, self._give_up, settling)

    def _give_up(self, settling: _Settling) -> None:
        if settling.over or self._verdict.done():
            return
        later = self.world.next_due()
        if later is not None and later > self._loop.time() and not self._hangs():
            self._later(later - self._loop.time() + LONGEST, self._give_up, settling)
            return
        left = "; ".join(self.world.left()) or "something is still under way"
        self._verdict.set_result(Wrong("settled", f"It does not come to rest: {left}."))

    def _hangs(self) -> bool:
        """Whether all that goes on is a handler that does not end, and whose message is kept hidden
        until it does."""
        return not self._watch.is_idle and self._loop.time() - self._progress >= LONGEST

    def _end(self) -> None:
        """End a scenario that makes no progress, and does not settle either."""
        if self._verdict.done():
            return
        if self._loop.time() - self._progress < ENDLESS:
            self._later(_HOUR, self._end)
            return
        what = "Nothing has happened for a day: does it wait for what never comes?"
        self._verdict.set_result(Wrong(name_of(self._setting.scenario), what, shrinks=False))

    # --- what happens ---

    def _go_on(self) -> None:
        """Something was sent, committed or acknowledged."""
        self._progress = self._loop.time()

    def _after_a_write(self) -> None:
        self._go_on()
        if self._setting.always:
            self._checks.after_a_write()

    def _send_to_nobody(self, queue: str) -> None:
        if not self._verdict.done():
            what = f"A command is sent to {queue!r}, which is not among the services: add it."
            self._verdict.set_result(Wrong("services", what, shrinks=False))

    def _ended(self, place: str, error: BaseException) -> None:
        if not self._verdict.done():
            what = f"The worker {place} ended with {error!r}."
            self._verdict.set_result(Wrong("worker", what, error))

    def _is_at_work(self) -> bool:
        return (
            self._planned > 0
            or not self._watch.is_idle
            or not all(place.has_started for place in self._places)
        )

    def _unexpected(self, loop: object, context: dict[str, Any]) -> None:
        """An exception that nobody was there to handle, in a task or a callback."""
        error = context.get("exception")
        owner = self._loop.current
        if error is None or is_of_network(error):
            return
        self._trace.note(owner.name, Kind.LOG, f"nobody handles {error!r}")
        if not self._verdict.done():
            what = f"In {owner.name} nobody handles {error!r}."
            self._verdict.set_result(Wrong("worker", what, error))

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
            self._ended,
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
        service = random.choice(list(self._cloud.network.called) or [DYNAMODB])
        seconds = random.random() * _MINUTE / 2
        self._trace.note("world", Kind.FAULT, f"{service} is down for {seconds:.0f} s")
        self._cloud.network.take_down(service, self._loop.time() + seconds)

    def _sweep(self) -> None:
        drawn = self._chance.drawn("ttl")
        if drawn is not None and drawn[1] < self._chance.rate("ttl"):
            self._later(drawn[1] / self._chance.rate("ttl") * _MINUTE, self._expire, drawn[0])

    def _expire(self, fault: Fault) -> None:
        deleted = self._cloud.expire()
        for name in deleted:
            self._trace.note("world", Kind.FAULT, f"DynamoDB deletes {name}, which expires soon")
        if deleted:
            self._chance.strike(fault)

    def _plan(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Let something happen later, and let nothing be settled before."""
        self._planned += 1

        def happen() -> None:
            self._planned -= 1
            callback(*args)

        self._later(delay, happen)

    def _later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_as(self._loop.world, delay, callback, *args)
