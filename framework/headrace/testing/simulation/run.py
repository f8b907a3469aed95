"""One run of a simulation: from a seed to what was wrong, if anything was."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, TypeAlias

import orjson

from headrace.context import current
from headrace.envelope import Outgoing
from headrace.events import contract_of
from headrace.outcome import Ack, Outcome
from headrace.ports import Delivery
from headrace.service import Service
from headrace.testing.letters import Letter, name_of
from headrace.testing.simulation.chance import Allowed, Chance, DrawnRandomness, Fault
from headrace.testing.simulation.cloud import Cloud
from headrace.testing.simulation.faults import Faults
from headrace.testing.simulation.liberties import Liberties
from headrace.testing.simulation.loop import START, LoopClock, SimulatedLoop, simulated_loop
from headrace.testing.simulation.ports import SERVICES
from headrace.testing.simulation.process import Place
from headrace.testing.simulation.trace import Entry, Kind, Trace
from headrace.testing.simulation.wording import ids_in
from headrace.testing.simulation.world import World
from headrace.topology.derive import topology

ResourcesOf: TypeAlias = Callable[[World], AbstractAsyncContextManager[Any]]
Scenario: TypeAlias = Callable[[World], Awaitable[None]]
Invariant: TypeAlias = Callable[[World], Awaitable[None] | None]

CALM_AFTER: Final = 180.0
"""Seconds after the end of the scenario when nothing goes wrong any more, so that a run ends."""

LONGEST: Final = 4 * 3600.0
"""Seconds after that, until what is not settled never will be."""

_DEPLOY_WITHIN: Final = 20.0
_OVERLAP: Final = 10.0
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """A service of which a new version is deployed while it is at work: for some seconds both
    versions run beside each other."""

    before: Service
    after: Service


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated, whatever the seed."""

    services: tuple[Service | Rollout, ...]
    scenario: Scenario
    invariants: tuple[Invariant, ...] = ()
    always: tuple[Invariant, ...] = ()
    faults: Faults = field(default_factory=Faults)
    resources: Mapping[str, ResourcesOf] = field(default_factory=dict)
    expected_letter: Callable[[Letter], bool] = lambda letter: False
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of a setting. `allowed` are the faults that may happen, `dropped` the sendings of
    the scenario that do not; `shuffled=False` runs what is ready in the order it became so."""

    seed: int
    allowed: Allowed = None
    dropped: frozenset[int] = frozenset()
    shuffled: bool = True
    calm: bool = False
    """No fault at all."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What was wrong: the name of what was broken, and how."""

    name: str
    sentence: str
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended. `struck` are the faults that happened; `sendings` counts what the scenario
    sent; `seconds` is how long it took, in its own time. `entries` are kept on demand."""

    plan: Plan
    rates: Mapping[str, float]
    wrong: Wrong | None
    struck: tuple[Fault, ...]
    sendings: int
    seconds: float
    entries: tuple[Entry, ...] = ()


def run(setting: Setting, plan: Plan, *, traced: bool = False) -> Run:
    """Run a setting once. The same setting and plan give the same run, entry for entry, as long as
    the services take time and chance from their context only."""
    rates = setting.faults.drawn(Random(plan.seed ^ _RATES))
    if plan.calm:
        rates = dict.fromkeys(rates, 0.0)
    chance = Chance(plan.seed, rates, plan.allowed)
    loop = simulated_loop(plan.seed if plan.shuffled else None)
    trace = Trace(traced, loop.time)
    with _undisturbed(loop, trace, plan.seed), loop:
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
        self._watch = _Watch(loop, trace)
        self._wrong: asyncio.Future[Wrong] = loop.create_future()
        self.world = World(
            [rollout.before for rollout in self._rollouts],
            self._cloud,
            chance,
            trace,
            plan.dropped,
            on_settling=self._settling,
        )

    # --- the run ---

    async def play(self) -> Wrong | None:
        """Play the scenario to its end, and look at what came out."""
        self._cloud.provision(topology(*(rollout.before for rollout in self._rollouts)))
        self._cloud.store.on_change = self._look_always if self._setting.always else None
        for rollout in self._rollouts:
            self._start(rollout)
        self._trouble()
        scenario = asyncio.ensure_future(self._scenario())
        first: list[asyncio.Future[Any]] = [scenario, self._wrong]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if self._wrong.done():
            scenario.cancel()
            await asyncio.wait([scenario])
            return self._wrong.result()
        return scenario.result() or await self._look()

    async def _scenario(self) -> Wrong | None:
        try:
            await self._setting.scenario(self.world)
        except AssertionError as error:
            return _broken("scenario", error)
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
        self._break(Wrong("settled", f"It does not come to rest: {left}."))

    def _break(self, wrong: Wrong) -> None:
        if not self._wrong.done():
            self._wrong.set_result(wrong)

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
            self._later(random.random() * _DEPLOY_WITHIN, self._deploy, rollout, workers, random)

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
            self._later(random.random() * _OVERLAP, place.stop)

    def _trouble(self) -> None:
        for service in self.world.services:
            self._poison(service)
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
            body = random.choice(_poisons(service, queue, random))
            self._later(random.random() * _DEPLOY_WITHIN, self._put_poison, queue, body)

    def _put_poison(self, queue: str, body: str) -> None:
        self._trace.note("world", Kind.FAULT, f"a message that nobody can read lies in {queue}")
        self.world.poison.append(body)
        self._cloud.put_poison(queue, body)

    def _outage(self) -> None:
        hard = self._chance.strikes("outage")
        if hard is not None:
            random = Random(int(hard * 2**53))
            service = random.choice(SERVICES)
            self._later(random.random() * _DEPLOY_WITHIN, self._begin_outage, service, random)

    def _begin_outage(self, service: str, random: Random) -> None:
        seconds = random.random() * _MINUTE
        self._trace.note("world", Kind.FAULT, f"{service} is down for {seconds:.0f} s")
        self._cloud.network.take_down(service, self._loop.time() + seconds)

    def _sweep(self) -> None:
        hard = self._chance.strikes("ttl")
        if hard is not None:
            self._later(hard * _MINUTE, self._expire)

    def _expire(self) -> None:
        for name in self._cloud.expire():
            self._trace.note("world", Kind.FAULT, f"DynamoDB deletes {name}, which expires soon")

    def _later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_as(self._loop.world, delay, callback, *args)

    # --- looking ---

    def _look_always(self) -> None:
        for invariant in self._setting.always:
            try:
                answer = invariant(self.world)
                if answer is not None:
                    raise TypeError("What is looked at after every write cannot be awaited.")
            except AssertionError as error:
                self._break(_broken(_name(invariant), error))

    async def _look(self) -> Wrong | None:
        for found in (self._crashed(), self._twice(), self._letters()):
            if found is not None:
                return found
        for invariant in self._setting.invariants:
            try:
                answer = invariant(self.world)
                if inspect.isawaitable(answer):
                    await answer
            except AssertionError as error:
                return _broken(_name(invariant), error)
        return None

    def _crashed(self) -> Wrong | None:
        for place in self._places:
            for error in place.errors:
                return Wrong("worker", f"The worker {place.name} ended with {error!r}.", error)
        return None

    def _twice(self) -> Wrong | None:
        """Whether an event took effect twice: two of its deliveries were each handled as the
        first one."""
        for (service, id), count in self._watch.effects().items():
            if count > 1 and not self._has_unrecorded(service):
                sentence = f"The event {id} took effect {count} times in {service!r}."
                return Wrong("exactly once", sentence)
        return None

    def _has_unrecorded(self, service: str) -> bool:
        return any(
            handler.idempotent
            for rollout in self._rollouts
            for version in (rollout.before, rollout.after)
            if version.name == service
            for handler in version.handlers
        )

    def _letters(self) -> Wrong | None:
        letters = self.world.dead_letters()
        for letter in letters:
            poisonous = letter.body in self.world.poison
            if not poisonous and not self._setting.expected_letter(letter):
                id = " ".join(ids_in(letter.body)[:1])
                what = f"{name_of(letter.body)} {id}".strip()
                sentence = f"{what} is a dead letter of {letter.queue!r}: {letter.reason}"
                return Wrong("dead letters", sentence)
        bodies = {letter.body for letter in letters}
        for body in self.world.poison:
            if body not in bodies:
                return Wrong("dead letters", f"The message {body!r} was lost: it is nowhere.")
        return None


class _Watch:
    """Observes the workers of a run: for the trace, and for what took effect."""

    def __init__(self, loop: SimulatedLoop, trace: Trace) -> None:
        self._loop = loop
        self._trace = trace
        self._acks: list[tuple[str, str]] = []

    def received(self, service: str, delivery: Delivery) -> None:
        """Said by the ports already, of all that is received."""

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, Ack) and not outcome.duplicate:
            self._acks.append((service, delivery.body))
        if self._trace.on:
            text = f"{_said(outcome)} of {name_of(delivery.body)}"
            self._trace.note(self._loop.current.name, Kind.SETTLED, text, ids_in(delivery.body))

    def sent(self, service: str, outgoing: Outgoing) -> None:
        """Said by the ports already."""

    def effects(self) -> Counter[tuple[str, str]]:
        """How often each event was handled as if for the first time, by service and event id."""
        return Counter((service, id) for service, body in self._acks for id in ids_in(body)[:1])


def _said(outcome: Outcome) -> str:
    if isinstance(outcome, Ack):
        return "ack (a duplicate)" if outcome.duplicate else "ack"
    return f"{type(outcome).__name__} ({outcome.reason})"


def _broken(name: str, error: AssertionError) -> Wrong:
    said = str(error).strip() or "it does not hold."
    return Wrong(name, said, error)


def _name(invariant: Invariant) -> str:
    return getattr(invariant, "__name__", repr(invariant)).replace("_", " ")


def _poisons(service: Service, queue: str, random: Random) -> list[str]:
    """Messages that no handler can make sense of."""
    serial = random.getrandbits(32)
    types = [cls for handler in service.handlers_of(queue) for cls in handler.takes]
    known = contract_of(random.choice(types)).name
    metadata = {"id": f"poison-{serial}", "type": known, "version": 1, "time": START.isoformat()}
    bodies = [
        {"detail-type": f"NobodyKnows{serial}", "detail": {"metadata": metadata, "data": {}}},
        {"nobody": "knows", "serial": serial},
        [serial],
    ]
    return [f"{{broken {serial}", *(orjson.dumps(body).decode() for body in bodies)]


@contextmanager
def _undisturbed(loop: SimulatedLoop, trace: Trace, seed: int) -> Iterator[None]:
    """Nothing from outside decides anything: not the garbage collector, which ends what is
    forgotten at times of its own, and not the state of `random`. What is logged goes into the
    trace."""
    state, root, collecting = random.getstate(), logging.getLogger(), gc.isenabled()
    handlers, disabled = root.handlers[:], root.manager.disable
    gc.disable()
    random.seed(seed)
    root.handlers[:] = [_Logged(loop, trace)]
    logging.disable(logging.NOTSET if trace.on else logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        random.setstate(state)
        if collecting:
            gc.enable()


class _Logged(logging.Handler):
    """Puts what is logged into the timeline."""

    def __init__(self, loop: SimulatedLoop, trace: Trace) -> None:
        super().__init__(logging.WARNING)
        self._loop = loop
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        context = current()
        about = () if context is None else (context.metadata.id,)
        self._trace.note(self._loop.current.name, Kind.LOG, record.getMessage(), about)
