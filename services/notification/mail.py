"""Sending mail: the port, and two adapters behind it."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

ORDER_HEADER = "X-Order-Id"
_SMTP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to one customer about one order."""

    order_id: str
    name: str
    address: str
    subject: str
    text: str
    time: datetime


class Mailer(Protocol):
    """Takes mail to customers."""

    async def send(self, mail: Mail, *, idempotency_key: str) -> None:
        """Send one mail. Sending again under the same key must not reach the customer as a
        second mail, as far as the way of sending can tell."""
        ...


class FileMailer:
    """Writes one `.eml` file per idempotency key into a folder, which it makes if need be."""

    def __init__(self, folder: Path, sender: str) -> None:
        self._folder = folder
        self._sender = sender

    async def send(self, mail: Mail, *, idempotency_key: str) -> None:
        message = as_message(mail, self._sender, idempotency_key)
        await asyncio.to_thread(self._write, f"{_digest(idempotency_key)}.eml", message)

    def _write(self, name: str, message: EmailMessage) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # A draft of its own, as one event may be handled twice at the same time. Renaming it
        # shows a reader of the folder a whole mail or none.
        descriptor, draft = tempfile.mkstemp(dir=self._folder, suffix=".part")
        with open(descriptor, "wb") as file:
            file.write(message.as_bytes())
        Path(draft).replace(self._folder / name)


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed in; with a user, over STARTTLS and after a login. The user and the
    password may be quoted as in a URL."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None


class SmtpMailer:
    """Hands mail to an SMTP server, one connection each.

    SMTP cannot deduplicate: a repeat carries the same Message-ID, by which mailboxes may.
    """

    def __init__(self, server: SmtpServer, sender: str) -> None:
        self._server = server
        self._sender = sender

    async def send(self, mail: Mail, *, idempotency_key: str) -> None:
        message = as_message(mail, self._sender, idempotency_key)
        await asyncio.to_thread(self._hand_in, message)

    def _hand_in(self, message: EmailMessage) -> None:
        server = self._server
        with smtplib.SMTP(server.host, server.port, timeout=_SMTP_SECONDS) as connection:
            if server.user:
                connection.starttls(context=ssl.create_default_context())
                connection.login(unquote(server.user), unquote(server.password or ""))
            connection.send_message(message)


def as_message(mail: Mail, sender: str, idempotency_key: str) -> EmailMessage:
    """The mail as RFC 5322 has it: the same mail and key give the same characters."""
    message = EmailMessage(policy=SMTP)
    message["Date"] = mail.time
    message["From"] = sender
    message["To"] = Address(display_name=mail.name, addr_spec=mail.address)
    message["Subject"] = mail.subject
    message["Message-ID"] = f"<{_digest(idempotency_key)}@{sender.rpartition('@')[2]}>"
    message[ORDER_HEADER] = mail.order_id
    message.set_content(mail.text)
    return message


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:32]
