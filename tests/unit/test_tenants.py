"""A command says whose it is, and SQS is told, wherever it is sent from and however often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from headrace import Ack, Command, Event, Retry, Service, Transaction
from headrace.client import send
from headrace.connection import connect
from headrace.envelope import Outgoing, root_metadata, seal
from headrace.errors import DefinitionError
from headrace.events import Message, contract_of, ensure_buildable, registry
from headrace.pipeline import running
from headrace.ports import EntryFailure, ItemKey, QueueEntry
from headrace.record import Record, Status
from headrace.relay import GRACE, Relay
from headrace.testing import delivery_of
from headrace.testing.memory import ManualClock, MemoryCloud, MemoryQueues, memory_ports
from headrace.topology.derive import topology


class LaundryBrought(Event, source="laundry.counter"):
    guest: str
    floor: int = 1


class Guest(BaseModel):
    id: str | None


if TYPE_CHECKING:
    LaterGuest = Guest


class WashLinen(Command, owner="washer", tenant="guest"):
    guest: str


class IronLinen(Command, owner="washer", tenant="guest.id"):
    guest: Guest | None


class AirRoom(Command, owner="washer"):
    guest: str


counter = Service("counter", bus="laundry", emits=[WashLinen])
washer = Service("washer", bus="laundry")


@counter.on(LaundryBrought)
async def take(event: LaundryBrought, tx: Transaction) -> list[WashLinen | AirRoom]:
    return [WashLinen(guest=event.guest), AirRoom(guest=event.guest)]


@washer.on(WashLinen, IronLinen, AirRoom)
async def wash(command: WashLinen | IronLinen | AirRoom) -> None: ...


class Closed(MemoryQueues):
    """Queues that take nothing."""

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        return [EntryFailure(i, "Closed", "no", retryable=False) for i in range(len(entries))]


@dataclass
class World:
    """The laundry on an account in memory."""

    cloud: MemoryCloud[ManualClock]

    def groups(self) -> dict[str, str | None]:
        """The group id of each command that reached the washer, by its name."""
        entries = self.cloud.queues.peek("washer")
        names = ("WashLinen", "IronLinen", "AirRoom")
        return {name: e.group_id for e in entries for name in names if f'"{name}"' in e.body}

    def closed(self) -> Any:
        return replace(self.cloud.ports, queues=Closed(self.cloud.clock, self.cloud.randomness))


@pytest.fixture
def world() -> World:
    cloud = memory_ports()
    cloud.provision(topology(counter, washer))
    return World(cloud)


def sealed(message: Message) -> Outgoing:
    metadata = root_metadata(message, id="m-1", now=ManualClock().now())
    return seal(message, metadata)


def group_of(tenant: Any) -> str | None:
    """The group id of a command for this tenant, whatever its type."""
    with registry.scratch():

        class Anyones(Command, owner="washer", tenant="whose"):
            whose: Any

        return sealed(Anyones(whose=tenant)).group_id


# --- how it is written -----------------------------------------------------------------


class Tier(Enum):
    GOLD = "gold"


class Level(IntEnum):
    TOP = 3


EVERYTHING = "".join(map(chr, range(0x21, 0x7F)))


@pytest.mark.parametrize(
    ("tenant", "group"),
    [
        ("customer-7", "customer-7"),
        (7, "7"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("1.50"), "1.50"),
        (Tier.GOLD, "gold"),
        (Level.TOP, "3"),
        (EVERYTHING, EVERYTHING),
        ("x" * 128, "x" * 128),
    ],
)
def test_a_tenant_that_sqs_takes_is_sent_as_text(tenant: Any, group: str) -> None:
    assert group_of(tenant) == group


@pytest.mark.parametrize("tenant", ["", "x" * 129, "Ada Lovelace", "Zoë", "a\n", "\x7f"])
def test_a_tenant_that_sqs_does_not_take_is_sent_as_its_hash(tenant: str) -> None:
    assert group_of(tenant) == sha256(tenant.encode()).hexdigest()


def test_no_tenant_is_no_group() -> None:
    assert group_of(None) is None
    assert sealed(AirRoom(guest="Ada")).group_id is None
    assert sealed(LaundryBrought(guest="Ada")).group_id is None


@pytest.mark.parametrize(
    ("guest", "group"), [(Guest(id="g-1"), "g-1"), (Guest(id=None), None), (None, None)]
)
def test_a_path_leads_to_a_field_of_a_field(guest: Guest | None, group: str | None) -> None:
    assert sealed(IronLinen(guest=guest)).group_id == group


# --- wherever it is sent from ----------------------------------------------------------


async def test_a_command_of_a_handler_carries_its_tenant(world: World) -> None:
    async with running(counter, world.cloud.ports) as pipeline:
        delivery = delivery_of(LaundryBrought(guest="g-1"), "counter", id="e-1")
        assert await pipeline.consume(delivery) == Ack()
    assert world.groups() == {"WashLinen": "g-1", "AirRoom": None}


async def test_a_resend_of_another_attempt_carries_it_too(world: World) -> None:
    delivery = delivery_of(LaundryBrought(guest="g-1"), "counter", id="e-1")
    async with running(counter, world.closed()) as pipeline:
        assert isinstance(await pipeline.consume(delivery), Retry)
    assert world.groups() == {}

    async with running(counter, world.cloud.ports) as pipeline:
        assert await pipeline.consume(replace(delivery, receive_count=2)) == Ack(duplicate=True)

    assert world.groups() == {"WashLinen": "g-1", "AirRoom": None}


async def test_a_transaction_outside_of_handlers_tells_the_tenant(world: World) -> None:
    async with (
        connect(counter, world.cloud.ports) as connection,
        connection.transaction(key="k") as tx,
    ):
        tx.publish(WashLinen(guest="g-2"))
    assert world.groups() == {"WashLinen": "g-2"}


async def test_the_relay_tells_the_tenant(world: World) -> None:
    async with (
        connect(counter, world.closed()) as connection,
        connection.transaction(key="k") as tx,
    ):
        tx.publish(WashLinen(guest="g-3"))
    world.cloud.clock.advance(GRACE + timedelta(seconds=1))

    assert await Relay(counter, world.cloud.ports).sweep() == 1

    assert world.groups() == {"WashLinen": "g-3"}


async def test_what_the_client_sends_tells_the_tenant(world: World) -> None:
    messages = [WashLinen(guest="g-4"), IronLinen(guest=Guest(id="g 5")), AirRoom(guest="g-6")]
    await send(world.cloud.ports, messages, bus="laundry")
    assert world.groups() == {
        "WashLinen": "g-4",
        "IronLinen": sha256(b"g 5").hexdigest(),
        "AirRoom": None,
    }


async def test_a_tenant_keeps_no_order_and_blocks_nobody(world: World) -> None:
    await send(world.cloud.ports, [WashLinen(guest="g")] * 2, bus="laundry")
    queues = world.cloud.ports.queues
    received = [
        delivery
        for _ in range(2)
        for delivery in await queues.receive("washer", limit=1, wait=timedelta(0))
    ]
    assert [(d.group_id, d.fifo) for d in received] == [("g", False)] * 2


# --- in the record ---------------------------------------------------------------------


def record_of(*outgoing: Outgoing) -> Record:
    key = ItemKey("counter", "inbox#counter.take#e-1", "-")
    return Record(key, "commit-1", Status.PENDING, None, outgoing)


def test_a_record_keeps_the_group_of_what_it_will_send() -> None:
    record = record_of(sealed(WashLinen(guest="g-1")), sealed(AirRoom(guest="g-1")))
    item = record.as_item()
    assert [m["M"].get("group") for m in item["outgoing"]["L"]] == [{"S": "g-1"}, None]
    assert Record.from_item("counter", item) == record


def test_a_record_of_a_message_without_tenant_is_what_it_was() -> None:
    (written,) = record_of(sealed(AirRoom(guest="g-1"))).as_item()["outgoing"]["L"]
    assert list(written["M"]) == ["id", "type", "detail", "time", "owner"]


def test_a_record_from_before_there_were_tenants_is_read() -> None:
    item = record_of(sealed(WashLinen(guest="g-1"))).as_item()
    del item["outgoing"]["L"][0]["M"]["group"]
    (read,) = Record.from_item("counter", item).outgoing
    assert isinstance(read, Outgoing)
    assert (read.owner, read.group_id) == ("washer", None)


# --- what cannot be one ----------------------------------------------------------------


@pytest.fixture
def scratch() -> Iterator[None]:
    with registry.scratch():
        yield


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("path", ["room", "guest.room", "guest.id.part", "", "guest.", "floors.id"])
def test_a_field_that_is_not_there_is_refused_at_the_definition(path: str) -> None:
    with pytest.raises(DefinitionError, match=rf"has no field '{path}' to take its tenant from"):

        class FoldLinen(Command, owner="washer", tenant=path):
            guest: Guest
            floors: dict[str, Guest]

    assert registry.find("FoldLinen") is None


@pytest.mark.usefixtures("scratch")
def test_the_refusal_says_what_there_is() -> None:
    with pytest.raises(DefinitionError, match="name one of guest, floor, or the path"):

        class FoldLinen(Command, owner="washer", tenant="customer"):
            guest: str
            floor: int


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(
    "kind",
    [list[str], dict[str, str], set[str] | None, Sequence[str], tuple[str, ...]],
    ids=str,
)
def test_a_field_of_several_values_is_refused(kind: Any) -> None:
    with pytest.raises(DefinitionError, match="of FoldLinen, 'guests', is not one value: name a f"):

        class FoldLinen(Command, owner="washer", tenant="guests"):
            guests: kind


@pytest.mark.usefixtures("scratch")
def test_a_model_is_refused_with_a_field_of_it() -> None:
    with pytest.raises(DefinitionError, match=r'or a number, such as "guest\.id"\.$'):

        class FoldLinen(Command, owner="washer", tenant="guest"):
            guest: Guest | None


@pytest.mark.usefixtures("scratch")
def test_annotations_do_not_hide_what_a_field_is() -> None:
    class FoldLinen(Command, owner="washer", tenant="guest.id"):
        guest: Annotated[Guest, Field(description="whose")] | None = None

    assert contract_of(FoldLinen).tenant == "guest.id"


@pytest.mark.usefixtures("scratch")
def test_what_is_defined_later_is_looked_at_when_a_handler_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FoldLinen(Command, owner="washer", tenant="guest.room"):
        guest: LaterGuest

    monkeypatch.setitem(globals(), "LaterGuest", Guest)
    with pytest.raises(DefinitionError, match=r"has no field 'guest\.room'.* name one of id,"):
        ensure_buildable(FoldLinen)


@pytest.mark.usefixtures("scratch")
def test_a_tenant_without_an_owner_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r'write class Fold.Command, owner="…", tenant='):

        class Fold(Command, tenant="guest"):
            guest: str


@pytest.mark.usefixtures("scratch")
def test_an_event_has_no_tenant() -> None:
    with pytest.raises(DefinitionError, match="unknown keyword 'tenant'"):

        class LinenFolded(Event, source="laundry.counter", tenant="guest"):
            guest: str
