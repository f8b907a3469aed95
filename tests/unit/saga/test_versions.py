"""Sagas in flight while another version of them is deployed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from headrace import Event, Service
from headrace.cli import main
from headrace.ports import Ports
from headrace.saga.item import SagaItem
from headrace.saga.operating import InFlight, Sagas
from headrace.saga.progress import Status
from headrace.testing.harness import Harness
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from tests.unit.cli.conftest import Ended
from tests.unit.saga import crossing
from tests.unit.saga.crossing import (
    SAGA,
    CartArrived,
    CartOnItsWay,
    CartTakenOver,
    SellTicket,
    TakeOver,
    TicketSold,
)
from tests.unit.saga.removal import Site, deployed

AT_ONCE = timedelta(0)


@pytest.fixture
def cloud() -> MemoryCloud[ManualClock]:
    return memory_ports()


async def hear(aws: Harness, *events: Event, dead_letters: int = 0) -> None:
    for event in events:
        await aws.publish(event)
    await aws.elapsed(AT_ONCE, dead_letters=dead_letters)


async def begin(cloud: MemoryCloud[ManualClock], service: Service, *carts: str) -> None:
    async with deployed(cloud, service) as aws:
        await hear(aws, *(CartArrived(cart=cart) for cart in carts))


def versions(aws: Harness, *carts: str) -> list[tuple[int, Status]]:
    items = [aws.get(SagaItem, f"bank.{SAGA}", cart) for cart in carts]
    return [(item.version, item.status) for item in items]


async def test_sagas_end_as_they_began_while_others_begin_anew(
    cloud: MemoryCloud[ManualClock],
) -> None:
    await begin(cloud, crossing.first, "old")
    async with deployed(cloud, crossing.both) as aws:
        await hear(aws, CartArrived(cart="new"))
        assert aws.sent(SellTicket) == [SellTicket(cart="new")]
        assert aws.sent(TakeOver) == []

        await hear(aws, TicketSold(cart="new"))
        await hear(aws, CartTakenOver(cart="new"), CartTakenOver(cart="old"))

        assert versions(aws, "old", "new") == [(1, Status.COMPLETED), (2, Status.COMPLETED)]
        paid = {event.cart: event.paid for event in aws.published(CartOnItsWay)}
        assert paid == {"old": False, "new": True}


async def test_what_an_old_version_does_not_know_is_ignored_by_it(
    cloud: MemoryCloud[ManualClock],
) -> None:
    await begin(cloud, crossing.first, "old")
    async with deployed(cloud, crossing.both) as aws:
        aws.clock.advance(timedelta(seconds=1))
        await hear(aws, TicketSold(cart="old"))

        assert versions(aws, "old") == [(1, Status.RUNNING)]
        *_, last = await Sagas(crossing.both, aws.ports).history(SAGA, "old")
        assert last.changes == ("TicketSold is ignored: version 1 knows nothing of it",)


async def test_a_message_for_a_version_that_is_gone_is_a_dead_letter_that_says_what_to_do(
    cloud: MemoryCloud[ManualClock],
) -> None:
    await begin(cloud, crossing.first, "old")
    async with deployed(cloud, crossing.second) as aws:
        await aws.publish(CartTakenOver(cart="old"))
        await aws.elapsed(timedelta(hours=1), dead_letters=1)

        (letter,) = aws.dead_letters()
        assert "The saga bank.crossing 'old' was begun by version 1, and this code has 2" in (
            letter.reason
        )
        assert "keep the class of that version until `headrace saga list`" in letter.reason
        assert versions(aws, "old") == [(1, Status.RUNNING)]


async def test_a_saga_goes_on_once_its_version_is_back(
    cloud: MemoryCloud[ManualClock],
) -> None:
    await begin(cloud, crossing.first, "old")
    async with deployed(cloud, crossing.second) as aws:
        await aws.publish(CartTakenOver(cart="old"))
        await aws.elapsed(timedelta(hours=1), dead_letters=1)
    async with deployed(cloud, crossing.both) as aws:
        # The letter is there still.
        await hear(aws, CartTakenOver(cart="old"), dead_letters=1)
        assert versions(aws, "old") == [(1, Status.COMPLETED)]


async def test_versions_that_the_code_does_not_have_are_counted_too(
    cloud: MemoryCloud[ManualClock],
) -> None:
    await begin(cloud, crossing.first, "a", "b")
    await begin(cloud, crossing.both, "c")

    assert await Sagas(crossing.second, cloud.ports).in_flight() == [
        InFlight(SAGA, 1, 2, 0, known=False),
        InFlight(SAGA, 2, 1, 0, known=True),
    ]
    assert await Sagas(crossing.first, cloud.ports).in_flight() == [
        InFlight(SAGA, 1, 2, 0, known=True),
        InFlight(SAGA, 2, 1, 0, known=False),
    ]


async def test_sagas_of_all_versions_are_listed_the_oldest_version_first(
    cloud: MemoryCloud[ManualClock],
) -> None:
    await begin(cloud, crossing.both, "a")
    await begin(cloud, crossing.first, "b")

    for service in (crossing.first, crossing.both, crossing.second):
        found = [item.key async for item in Sagas(service, cloud.ports).open(SAGA)]
        assert found == ["b", "a"]


# --- on the command line -----------------------------------------------------------------


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    """Carts of both versions on their way, and nobody at work."""
    site = Site()
    site.works = False

    @asynccontextmanager
    async def opened(config: object) -> AsyncIterator[Ports]:
        yield site.cloud.ports

    monkeypatch.setattr("headrace.aws.client.open_ports", opened)
    for name in ("check", "saga"):
        monkeypatch.setattr(f"headrace.cli.{name}.run", site.run)
    return site


@pytest.fixture
def headrace(site: Site, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def call(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        code: Any = ended.value.code or 0
        return Ended(code, captured.out, captured.err)

    return call


def service(name: str) -> str:
    return f"tests.unit.saga.crossing:{name}"


def test_to_remove_a_version_that_is_in_flight_is_refused(
    site: Site, headrace: Callable[..., Ended]
) -> None:
    site.run(begin(site.cloud, crossing.first, "a", "b"))
    ended = headrace("check", service("second"), "--in-flight")

    assert ended.code == 1
    assert (
        "error: bank.crossing: 2 sagas in flight were begun by version 1, which this code no "
        "longer has: keep the class of that version beside PaidCrossing until `headrace saga list "
        "… --saga crossing` shows none of it any more."
    ) in ended.out
    assert headrace("check", service("both"), "--in-flight").code == 0
    assert headrace("check", service("second")).code == 0


def test_to_go_back_behind_a_version_that_is_in_flight_is_refused(
    site: Site, headrace: Callable[..., Ended]
) -> None:
    site.run(begin(site.cloud, crossing.both, "a"))
    ended = headrace("check", service("first"), "--in-flight")

    assert ended.code == 1
    assert (
        "1 saga in flight was begun by version 2, which this code does not have yet, as its newest "
        "is 1: deploy code with both."
    ) in ended.out


def test_a_version_that_nothing_is_left_of_can_be_removed(
    site: Site, headrace: Callable[..., Ended]
) -> None:
    async def cross() -> None:
        async with deployed(site.cloud, crossing.first) as aws:
            await hear(aws, CartArrived(cart="a"))
            await hear(aws, CartTakenOver(cart="a"))

    site.run(cross())

    assert headrace("check", service("second"), "--in-flight").code == 0


def test_a_saga_of_a_version_that_is_gone_is_shown_without_its_state(
    site: Site, headrace: Callable[..., Ended]
) -> None:
    site.run(begin(site.cloud, crossing.first, "a"))
    ended = headrace("saga", "show", service("second"), "a")

    assert ended.code == 0
    assert "Its state is not shown" in ended.out
    assert "deploy a class of that version beside the newer ones" in ended.out
    assert "take_over sent" in ended.out
    assert '"state":null' in headrace("saga", "show", service("second"), "a", "--json").out
