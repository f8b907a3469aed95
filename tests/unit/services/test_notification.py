"""The notification service tells each customer once how the order ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, message_from_string
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from headrace.client import send
from headrace.errors import ConfigurationError, Unreachable
from headrace.outcome import Ack, Retry
from headrace.pipeline import running
from headrace.ports import Delete, Put, Update
from headrace.testing.memory import MemoryStore, memory_ports
from headrace.topology.derive import topology
from schemas.order import Customer, OrderCancelled
from services.notification.app import notification
from services.notification.bootstrap import open_mailer
from services.notification.mail import Mail
from tests.unit.services.shop import Shop, line, place

MAIL = Mail(
    order_id="W1",
    name="Łukasz, Café “Morgenrot”",
    address="einkauf@cafe.example",
    subject="Your order W1 is confirmed",
    text="Dear Łukasz,\n\n.\nthank you.\n",
    time=datetime(2026, 11, 21, 12, tzinfo=UTC),
)


def files(folder: Path) -> dict[str, bytes]:
    """What is in the folder, if it was made, by name."""
    return {file.name: file.read_bytes() for file in folder.glob("*")}


def mails(folder: Path) -> list[EmailMessage]:
    return [message_from_bytes(file, policy=default) for file in files(folder).values()]


def text_of(mail: EmailMessage) -> str:
    return str(mail.get_content()).replace("\r\n", "\n")


async def test_the_mail_of_a_confirmed_order_lists_what_was_bought(
    shop: Shop, mail_folder: Path
) -> None:
    await shop.restock(MUG=5)
    await shop.send(place("W1", line("MUG", 2, "14.00"), currency="CHF"))
    (mail,) = mails(mail_folder)
    assert mail["Subject"] == "Your order W1 is confirmed"
    assert mail["To"] == "Chiara Lombardi <chiara@example.com>"
    assert mail["X-Order-Id"] == "W1"
    assert "2 x MUG at 14.00 CHF" in text_of(mail)
    assert "Total: 28.00 CHF" in text_of(mail)


async def test_the_mail_of_a_cancelled_order_says_why(shop: Shop, mail_folder: Path) -> None:
    await shop.send(place("W1", line("UNICORN", 1, "9.99")))
    (mail,) = mails(mail_folder)
    assert mail["Subject"] == "Your order W1 is cancelled"
    assert "We do not have enough of UNICORN." in text_of(mail)
    assert "not charged the 9.99 EUR" in text_of(mail)


class OnceUnreachable(MemoryStore):
    """Fails the first commit, after everything that comes before it was done."""

    _changes = 0

    async def change(self, action: Put | Update | Delete) -> None:
        self._changes += 1
        # The first takes the lease; the second is the commit.
        if self._changes == 2:
            raise Unreachable("The answer was lost.", operation="PutItem")
        await super().change(action)


async def test_a_mail_that_was_sent_before_a_failed_commit_is_not_a_second_mail(
    mail_folder: Path,
) -> None:
    cloud = memory_ports()
    cloud = replace(cloud, store=OnceUnreachable(cloud.clock))
    cloud.provision(topology(notification))
    cancelled = OrderCancelled(
        order_id="W1",
        customer=Customer(name="Chiara", email="chiara@example.com"),
        total=line("MUG").unit_price,
        currency="EUR",
        reason="We do not have enough of MUG.",
    )
    await send(cloud.ports, [cancelled], bus="shop", ids=["e1"])
    (delivery,) = await cloud.queues.receive("notification", limit=1, wait=timedelta(0))
    async with running(notification, cloud.ports) as pipeline:
        first = await pipeline.consume(delivery)
        sent_first = files(mail_folder)
        second = await pipeline.consume(delivery)
    assert isinstance(first, Retry)
    assert second == Ack()
    assert files(mail_folder) == sent_first
    assert len(sent_first) == 1


async def test_two_keys_are_two_mails(mail_folder: Path) -> None:
    async with open_mailer() as mailer:
        for key in ("a", "b", "a"):
            await mailer.send(MAIL, idempotency_key=key)
    assert len(mails(mail_folder)) == 2


async def test_the_same_mail_at_once_is_one_whole_file(mail_folder: Path) -> None:
    async with open_mailer() as mailer:
        await asyncio.gather(*(mailer.send(MAIL, idempotency_key="a") for _ in range(8)))
    (name,) = files(mail_folder)
    assert name.endswith(".eml")


async def test_names_and_text_of_any_language_arrive(mail_folder: Path) -> None:
    async with open_mailer() as mailer:
        await mailer.send(MAIL, idempotency_key="a")
    (mail,) = mails(mail_folder)
    (to,) = mail["To"].addresses
    assert (to.display_name, to.addr_spec) == (MAIL.name, MAIL.address)
    assert text_of(mail) == MAIL.text


class MailServer:
    """As much of an SMTP server as hands over one mail; remembers what it took."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        while command := (await reader.readline()).strip().upper():
            if command == b"DATA":
                writer.write(b"354 go on\r\n")
                content = await reader.readuntil(b"\r\n.\r\n")
                self.taken.append(content.removesuffix(b".\r\n").decode().replace("\r\n.", "\r\n"))
            writer.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")
            if command == b"QUIT":
                break
        writer.close()
        await writer.wait_closed()


async def test_mail_url_sends_mail_to_an_smtp_server(
    mail_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MailServer()
    async with server.listening() as port:
        monkeypatch.setenv("MAIL_URL", f"smtp://127.0.0.1:{port}")
        async with open_mailer() as mailer:
            await mailer.send(MAIL, idempotency_key="a")
            await mailer.send(MAIL, idempotency_key="a")
    first, again = (message_from_string(text, policy=default) for text in server.taken)
    assert first["Subject"] == MAIL.subject
    assert first["Message-ID"] == again["Message-ID"]
    assert files(mail_folder) == {}


@pytest.mark.parametrize("url", ["https://mail.example", "smtp://", "smtp://mail.example:mx"])
async def test_a_mail_url_that_cannot_be_used_is_refused_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MAIL_URL", url)
    with pytest.raises(ConfigurationError, match="write smtp://host:port"):
        async with open_mailer():
            pass
