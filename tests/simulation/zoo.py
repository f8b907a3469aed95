"""A zoo: all that services can be made of and the sample shop is not.

    ZooAdmit ──► gate.admit ──► ZooFeed ──► kitchen.feed ──► ZooFed or ZooHungry
                     │                                         ├─► gate.thank ────► ZooNoted
                     │                                         └─► gate.remember ─► ZooNoted
                     └──► ZooAdmitted                                 └─► kitchen.guestbook
                              ├─► kitchen.seat, kitchen.echo
                              └─► kitchen.cook, gate.warn (lions only)

Beside it, at the gate ten tickets are scanned at once and places are booked over HTTP; and the vet
operates, rings bells, looks at photos, counts animals and stumbles.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import combinations, pairwise
from typing import Any, Final

from pydantic import Field

from headrace import (
    AlreadyDone,
    Command,
    ConditionNotMet,
    Entity,
    Event,
    KeyReused,
    Metadata,
    Policy,
    QueueSettings,
    RetryLater,
    Service,
    Transaction,
)
from headrace.connection import Connection
from headrace.ports import Delivery
from headrace.testing import Letter, World

# --- what is said ----------------------------------------------------------------------


class ZooAdmit(Command, owner="zoo-gate"):
    visitor: str
    animal: str
    portions: int


class ZooAdmitted(Event, source="zoo.gate"):
    visitor: str
    animal: str


class ZooFeed(Command, owner="zoo-kitchen"):
    visitor: str
    portions: int


class ZooFed(Event, source="zoo.kitchen"):
    visitor: str


class ZooHungry(Event, source="zoo.kitchen"):
    visitor: str


class ZooEchoed(Event, source="zoo.kitchen"):
    visitor: str


class ZooNoted(Event, source="zoo.gate"):
    visitor: str


class ZooTicket(Command, owner="zoo-gate"):
    number: int


class ZooOperate(Command, owner="zoo-vet"):
    operation: str
    animal: str
    pulses: int


class ZooHealed(Event, source="zoo.vet"):
    operation: str


class ZooCensus(Command, owner="zoo-vet"):
    census: str


class ZooStumble(Command, owner="zoo-vet"):
    stumble: str
    falls: int


class ZooHatch(Command, owner="zoo-vet"):
    """Only its next version is ever sent, by somebody who was deployed too early."""

    egg: str


class ZooRing(Event, source="zoo.tower"):
    number: int


class ZooPhoto(Event, source="aws.s3", name="Zoo Photo Created", native=True):
    photo: str


# --- what is kept ----------------------------------------------------------------------


class Step(Entity, pk="visit#{visitor}", sk="step#{name}"):
    """That a handler has done its part for a visitor, how often, and for whose sake."""

    visitor: str
    name: str
    times: int = 0
    correlation: str = ""


class Larder(Entity, pk="larder#{name}"):
    name: str
    portions: int


class Desk(Entity, pk="desk#{name}"):
    name: str
    bookings: int = 0


class Turnstile(Entity, pk="turnstile#{name}"):
    name: str
    turns: int = 0


class Scan(Entity, pk="scan#{number}"):
    number: int
    times: int = 0


class Animal(Entity, pk="house#{house}", sk="animal#{name}"):
    house: str
    name: str
    weight: int
    operations: int = 0


class Bells(Entity, pk="bells#{tower}"):
    tower: str
    rung: list[int] = Field(default_factory=list)


class Tally(Entity, pk="tally#{name}"):
    """How often something took effect, and what it came to."""

    name: str
    times: int = 0
    result: int = 0


LARDER: Final = "larder"
HOUSE: Final = "house"
TOWER: Final = "tower"
DESK: Final = "desk"
NORTH: Final = "north"
LION: Final = "lion"
PORTIONS: Final = 4
"""In the larder, before the first visitor."""

ANIMALS: Final = {"lion": 190, "okapi": 250, "tapir": 220}
"""Their weights."""

PULSE: Final = 1.0
"""Seconds between two signs of life of an operation."""

_PATIENT: Final = Policy(attempts=100)
_SETTINGS: Final = QueueSettings(visibility=timedelta(seconds=20), max_receive_count=100)
"""No handler is given up."""


@dataclass(slots=True)
class Run:
    """One run of the handler that operates: when it showed signs of life, the first one at its
    beginning, and none while its process stands still or is dead."""

    key: str
    pulses: list[float] = field(default_factory=list)

    def beat(self) -> None:
        self.pulses.append(asyncio.get_running_loop().time())


class Theatre:
    """Where the vet operates; the same for all processes."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs

    def begin(self, key: str) -> Run:
        run = Run(key)
        self._runs.append(run)
        run.beat()
        return run


@asynccontextmanager
async def open_theatre() -> AsyncIterator[Theatre]:
    yield Theatre([])


# --- the gate --------------------------------------------------------------------------

gate = Service("zoo-gate", bus="zoo", emits=[ZooAdmit], policy=_PATIENT, queues=_SETTINGS)


async def take_step(tx: Transaction, visitor: str, name: str, metadata: Metadata) -> None:
    """Count one more time that this was done, and note whose sake it was for."""
    step = await tx.get(Step, visitor, name) or Step(visitor=visitor, name=name)
    step.times += 1
    step.correlation = metadata.correlation_id
    tx.put(step)


@gate.on(ZooAdmit)
async def admit(
    command: ZooAdmit, tx: Transaction, metadata: Metadata
) -> list[ZooAdmitted | ZooFeed]:
    await take_step(tx, command.visitor, "admitted", metadata)
    return [
        ZooAdmitted(visitor=command.visitor, animal=command.animal),
        ZooFeed(visitor=command.visitor, portions=command.portions),
    ]


@gate.on(ZooFed)
async def thank(event: ZooFed, tx: Transaction, metadata: Metadata) -> ZooNoted:
    await take_step(tx, event.visitor, "thanked", metadata)
    return ZooNoted(visitor=event.visitor)


@gate.on(ZooFed)
def remember(event: ZooFed, tx: Transaction, metadata: Metadata) -> ZooNoted:
    tx.update(
        Step,
        event.visitor,
        "remembered",
        change="SET #correlation = :whose ADD #times :one",
        values={"whose": metadata.correlation_id, "one": 1},
    )
    return ZooNoted(visitor=event.visitor)


@gate.on(
    ZooAdmitted,
    where=lambda event: event.animal == "lion",
    queue="lions",
    timeout=timedelta(seconds=3),
)
async def warn(event: ZooAdmitted, tx: Transaction, metadata: Metadata, delivery: Delivery) -> None:
    if delivery.receive_count == 1:
        # Something that never answers; the next time it does.
        await asyncio.Event().wait()
    await take_step(tx, event.visitor, "warned", metadata)


@gate.on(ZooTicket)
async def scan(ticket: ZooTicket, tx: Transaction) -> None:
    scanned = await tx.get(Scan, ticket.number) or Scan(number=ticket.number)
    scanned.times += 1
    tx.put(scanned)
    if ticket.number % 3:
        turnstile = await tx.get(Turnstile, NORTH) or Turnstile(name=NORTH)
        turnstile.turns += 1
        tx.put(turnstile)


async def book(service: Connection, key: str, visitor: str, animal: str) -> Answer:
    """What an HTTP request does; the number is another one for each booking."""
    answer = partial(Answer, key, visitor)
    try:
        async with service.transaction(key=key, content=visitor) as tx:
            desk = await tx.get(Desk, DESK) or Desk(name=DESK)
            desk.bookings += 1
            tx.put(desk)
            tx.publish(ZooAdmit(visitor=visitor, animal=animal, portions=1))
            tx.answer = desk.bookings
    except AlreadyDone as done:
        return answer(done.answer)
    except KeyReused:
        return answer(REUSED)
    return answer(desk.bookings)


REUSED: Final = "the key was reused"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a key and its content."""

    key: str
    visitor: str
    said: object


# --- the kitchen -----------------------------------------------------------------------

kitchen = Service("zoo-kitchen", bus="zoo", policy=_PATIENT, queues=_SETTINGS)


@kitchen.on(ZooFeed)
async def feed(command: ZooFeed, tx: Transaction, metadata: Metadata) -> ZooFed | ZooHungry:
    await take_step(tx, command.visitor, "fed", metadata)
    try:
        with tx.savepoint():
            tx.update(
                Larder,
                LARDER,
                change="SET #portions = #portions - :wanted",
                condition="#portions >= :wanted",
                values={"wanted": command.portions},
            )
    except ConditionNotMet:
        return ZooHungry(visitor=command.visitor)
    return ZooFed(visitor=command.visitor)


@kitchen.on(ZooAdmitted)
async def seat(event: ZooAdmitted, tx: Transaction, metadata: Metadata) -> None:
    await take_step(tx, event.visitor, "seated", metadata)


@kitchen.on(ZooAdmitted, where=lambda event: event.animal == "lion")
async def cook(event: ZooAdmitted, tx: Transaction, metadata: Metadata) -> None:
    await take_step(tx, event.visitor, "cooked", metadata)


@kitchen.on(ZooAdmitted, idempotent=True)
def echo(event: ZooAdmitted) -> ZooEchoed:
    return ZooEchoed(visitor=event.visitor)


@kitchen.on(ZooNoted)
async def guestbook(event: ZooNoted, tx: Transaction, metadata: Metadata) -> None:
    if await tx.get(Step, event.visitor, "seated") is None:
        raise RetryLater(delay=timedelta(seconds=2))
    await take_step(tx, event.visitor, "noted", metadata)


# --- the vet ---------------------------------------------------------------------------

vet = Service(
    "zoo-vet",
    bus="zoo",
    resources=open_theatre,
    policy=_PATIENT,
    # Longer than an operation, so that it is its lease that keeps another one out.
    queues=QueueSettings(visibility=timedelta(seconds=30), max_receive_count=100),
)


@vet.on(ZooOperate, lease=timedelta(seconds=9), on_held="wait")
async def operate(command: ZooOperate, tx: Transaction, theatre: Theatre) -> ZooHealed:
    run = theatre.begin(tx.idempotency_key)
    for _ in range(command.pulses):
        await asyncio.sleep(PULSE)
        run.beat()
    # Nothing that was read stands in the way of a second commit: only the lease does.
    tx.update(Animal, HOUSE, command.animal, change="ADD #operations :one", values={"one": 1})
    return ZooHealed(operation=command.operation)


@vet.on(ZooRing, queue="bells.fifo")
async def ring(event: ZooRing, tx: Transaction, delivery: Delivery) -> None:
    if event.number == 1 and delivery.receive_count < 3:
        raise RuntimeError("The rope slips.")
    bells = await tx.get(Bells, TOWER) or Bells(tower=TOWER)
    tx.put(bells.model_copy(update={"rung": [*bells.rung, event.number]}))


@vet.on(ZooPhoto)
async def develop(event: ZooPhoto, tx: Transaction) -> None:
    await _count(tx, event.photo)


@vet.on(ZooCensus)
async def take_census(command: ZooCensus, tx: Transaction) -> None:
    found = await tx.query(Animal, HOUSE)
    again = await tx.get_many(Animal, [(HOUSE, animal.name) for animal in found])
    assert again == found, "A query and reads of what it found differ."
    await _count(tx, command.census, sum(animal.weight for animal in found))


@vet.on(ZooStumble)
async def stumble(command: ZooStumble, tx: Transaction, delivery: Delivery) -> None:
    if delivery.receive_count <= command.falls:
        raise RuntimeError("The vet falls over a tortoise.")
    await _count(tx, command.stumble)


@vet.on(ZooHatch)
async def hatch(command: ZooHatch, tx: Transaction) -> None:
    await _count(tx, command.egg)


async def _count(tx: Transaction, name: str, result: int = 0) -> None:
    tally = await tx.get(Tally, name) or Tally(name=name)
    tx.put(tally.model_copy(update={"times": tally.times + 1, "result": result}))


# --- the scenario ----------------------------------------------------------------------

SERVICES: Final = (gate, kitchen, vet)

RUNS: Final = "runs"
ANSWERS: Final = "answers"
OTHERS: Final = "messages to the vet"
EGG: Final = (
    '{"detail-type":"ZooHatch","detail":{"metadata":{"id":"egg-0","type":"ZooHatch","version":2,'
    '"time":"2026-01-01T00:00:00Z","correlation_id":"egg-0"},"data":{"egg":"egg-0"}}}'
)


@asynccontextmanager
async def open_simulated_theatre(aws: World) -> AsyncIterator[Theatre]:
    yield Theatre(aws.ledger(RUNS))


RESOURCES: Final = {vet: open_simulated_theatre}


async def open_day(aws: World) -> None:
    """Some visitors, and now and then something else."""
    await aws.put(Larder(name=LARDER, portions=PORTIONS), service=kitchen)
    await aws.put(
        *(Animal(house=HOUSE, name=name, weight=weight) for name, weight in ANIMALS.items()),
        service=vet,
    )
    happenings = [_visits, _bookings, _tickets, _operations, _bells, _odds_and_ends]
    aws.random.shuffle(happenings)
    for happens in happenings[:4]:
        await asyncio.sleep(aws.random.random())
        await happens(aws)


async def _visits(aws: World) -> None:
    number_of = aws.random.choice([1, 2, 4])
    await aws.send(*(_visit(aws, f"visitor-{number}") for number in range(number_of)))


def _visit(aws: World, visitor: str) -> ZooAdmit:
    portions = aws.random.choice([1, 3])
    return ZooAdmit(visitor=visitor, animal=_animal(aws), portions=portions)


async def _bookings(aws: World) -> None:
    for number in range(aws.random.choice([1, 2])):
        serve = partial(book, key=f"key-{number}", visitor=f"guest-{number}", animal=_animal(aws))
        answers = [await aws.request(gate, serve)]
        if aws.random.random() < 0.7:
            # Two at once, as when somebody clicks twice.
            answers += await asyncio.gather(aws.request(gate, serve), aws.request(gate, serve))
        if any(answers):
            stranger = partial(serve, visitor="stranger")
            answers.append(await aws.request(gate, stranger))
        aws.ledger(ANSWERS).extend(answer for answer in answers if answer is not None)


async def _tickets(aws: World) -> None:
    await aws.send(*(ZooTicket(number=number) for number in range(10)))


async def _operations(aws: World) -> None:
    for number in range(aws.random.choice([2, 4])):
        operation, pulses = f"operation-{number}", aws.random.choice([1, 2, 20])
        await aws.send(ZooOperate(operation=operation, animal=_animal(aws), pulses=pulses))


async def _bells(aws: World) -> None:
    for number in range(3):
        aws.ledger(TOWER).extend(await aws.publish(ZooRing(number=number)))


async def _odds_and_ends(aws: World) -> None:
    photos = await aws.publish(ZooPhoto(photo="photo-0"), ZooPhoto(photo="photo-1"))
    others = await aws.send(
        ZooCensus(census="census"), ZooStumble(stumble="stumble", falls=aws.random.choice([1, 3]))
    )
    aws.ledger(OTHERS).extend([*photos, *others])
    await aws.put_message(vet.name, EGG)


def _animal(aws: World) -> str:
    return aws.random.choice(list(ANIMALS))


# --- what must hold --------------------------------------------------------------------


def the_larder_is_never_overdrawn(aws: World) -> None:
    larder = aws.find(Larder, LARDER, service=kitchen)
    assert larder is None or larder.portions >= 0, f"{larder.portions} portions are in the larder"


def every_step_is_taken_once(aws: World) -> None:
    fed = {event.visitor for event in aws.published(ZooFed)}
    due: dict[tuple[str, str], int] = {}
    for _, command in aws.traffic(ZooAdmit):
        steps = dict.fromkeys(["admitted", "seated", "fed"], 1)
        if command.animal == LION:
            steps |= {"cooked": 1, "warned": 1}
        if command.visitor in fed:
            steps |= {"thanked": 1, "remembered": 1, "noted": 2}
        due |= {(command.visitor, name): times for name, times in steps.items()}
    taken = {(step.visitor, step.name): step.times for step in _steps(aws)}
    for step in sorted({*taken, *due}):
        times, should_be = taken.get(step, 0), due.get(step, 0)
        assert times == should_be, f"{step} was taken {times} times, and should be {should_be}"


def every_visitor_is_fed_or_hungry(aws: World) -> None:
    said = Counter(event.visitor for event in aws.published(ZooFed))
    said += Counter(event.visitor for event in aws.published(ZooHungry))
    echoed = Counter(event.visitor for event in aws.published(ZooEchoed))
    for _, command in aws.traffic(ZooAdmit):
        times, echoes = said[command.visitor], echoed[command.visitor]
        assert times == 1, f"the kitchen has answered {times} times about {command.visitor}"
        assert echoes == 1, f"there are {echoes} different echoes of {command.visitor}"


def the_larder_adds_up(aws: World) -> None:
    fed = {event.visitor for event in aws.published(ZooFed)}
    eaten = sum(c.portions for _, c in aws.traffic(ZooFeed) if c.visitor in fed)
    left = aws.get(Larder, LARDER, service=kitchen).portions
    assert left == PORTIONS - eaten, f"{left} of {PORTIONS} portions are left, {eaten} were eaten"


def everything_knows_its_first_command(aws: World) -> None:
    first = {command.visitor: id for id, command in aws.traffic(ZooAdmit)}
    for step in _steps(aws):
        assert step.correlation == first[step.visitor], (
            f"{step.name} of {step.visitor} has the correlation {step.correlation}, and the first "
            f"command had {first[step.visitor]}"
        )


def every_ticket_is_scanned_once(aws: World) -> None:
    sent = {command.number: 1 for _, command in aws.traffic(ZooTicket)}
    scanned = {found.number: found.times for found in aws.all(Scan, gate)}
    turnstile = aws.find(Turnstile, NORTH, service=gate)
    turns, due = turnstile.turns if turnstile else 0, sum(1 for number in sent if number % 3)
    assert scanned == sent, f"{scanned} were scanned, {sorted(sent)} were sent"
    assert turns == due, f"the turnstile has turned {turns} times, and should have {due} times"


def a_key_has_one_answer(aws: World) -> None:
    """Whoever asks the same gets the same, and whoever asks something else is told."""
    said: dict[tuple[str, str], set[object]] = defaultdict(set)
    for answer in aws.ledger(ANSWERS):
        said[answer.key, answer.visitor].add(answer.said)
    for (key, visitor), answers in said.items():
        assert len(answers) == 1, f"{visitor} was told {answers} about {key}"
        assert (answers == {REUSED}) == (visitor == "stranger"), f"{visitor} was told {answers}"


def every_booking_is_made_once(aws: World) -> None:
    keys = {answer.key for answer in aws.ledger(ANSWERS)}
    desk = aws.find(Desk, DESK, service=gate)
    booked, sent = desk.bookings if desk else 0, len(aws.sent(ZooAdmit))
    assert booked == sent == len(keys), f"{len(keys)} keys, {booked} bookings, {sent} commands"


def one_at_a_time_operates(aws: World) -> None:
    """While one run goes on, no other run of its event begins; unless its process stands still
    just then. Where the table cannot be reached, or clocks differ, it may take some seconds until
    a run that has lost its lease knows."""
    runs: list[Run] = aws.ledger(RUNS)
    for run, later in combinations(runs, 2):
        began = later.pulses[0]
        at_once = run.key == later.key and _goes_on(run, began)
        assert not at_once, f"{run.key} is at work twice, from {began:.1f} s on"


_TO_KNOW: Final = 5.0
"""Seconds within which a run that has lost its lease has ended."""


def _goes_on(run: Run, began: float) -> bool:
    """Whether a run is at work from a moment on, and for longer than it may."""
    gaps = [b - a for a, b in pairwise(run.pulses) if b > began and a < began + _TO_KNOW]
    lasts = run.pulses[0] <= began and run.pulses[-1] >= began + _TO_KNOW
    return lasts and max(gaps) < 1.5 * PULSE


def every_operation_is_done_once(aws: World) -> None:
    sent = [command for _, command in aws.traffic(ZooOperate)]
    due = Counter(command.animal for command in sent)
    done = {animal.name: animal.operations for animal in aws.all(Animal, vet)}
    healed = Counter(event.operation for event in aws.published(ZooHealed))
    assert +Counter(done) == due, f"{done} operations are done, {dict(due)} were asked for"
    assert healed == Counter(command.operation for command in sent), f"{dict(healed)} are healed"


def bells_ring_in_order(aws: World) -> None:
    bells = aws.find(Bells, TOWER, service=vet)
    rung, due = bells.rung if bells else [], [event.number for event in aws.ledger(TOWER)]
    assert rung == due, f"the bells have rung {rung}, and should have {due}"


def the_vet_does_the_rest_once(aws: World) -> None:
    due = dict(_tally(message) for message in aws.ledger(OTHERS))
    done = {tally.name: (tally.times, tally.result) for tally in aws.all(Tally, vet)}
    assert done == due, f"{done} is done, and should be {due}"


def what_is_too_new_is_kept(aws: World) -> None:
    kept = {letter.body for letter in aws.dead_letters(vet)}
    for id, _ in aws.traffic(ZooHatch):
        assert EGG in kept, f"{id} is not among the dead letters"


def _tally(message: Any) -> tuple[str, tuple[int, int]]:
    match message:
        case ZooPhoto():
            return message.photo, (1, 0)
        case ZooCensus():
            return message.census, (1, sum(ANIMALS.values()))
        case _:
            return message.stumble, (1, 0)


def _steps(aws: World) -> list[Step]:
    return [*aws.all(Step, gate), *aws.all(Step, kitchen)]


def is_expected(letter: Letter) -> bool:
    """Nothing else of what the zoo sends becomes a dead letter."""
    return letter.body == EGG


ALWAYS: Final = (the_larder_is_never_overdrawn,)
IN_THE_END: Final = (
    every_step_is_taken_once,
    every_visitor_is_fed_or_hungry,
    the_larder_adds_up,
    everything_knows_its_first_command,
    every_ticket_is_scanned_once,
    a_key_has_one_answer,
    every_booking_is_made_once,
    one_at_a_time_operates,
    every_operation_is_done_once,
    bells_ring_in_order,
    the_vet_does_the_rest_once,
    what_is_too_new_is_kept,
)
