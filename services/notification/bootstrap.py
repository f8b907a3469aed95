"""What the notification service needs from outside, chosen by the environment.

MAIL_URL    smtp://[user:password@]host[:port] sends mail; without it, mail is written to files.
            As it may hold a password, MAIL_URL_SECRET names it in Secrets Manager instead
MAIL_DIR    the folder of these files, ./mail by default
MAIL_FROM   the sender's address
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from headrace.aws.secrets import secret
from headrace.errors import ConfigurationError
from services.notification.mail import FileMailer, Mailer, SmtpMailer, SmtpServer

_SENDER = "orders@shop.example"
_HOW = "write smtp://host:port, with user:password@ before the host if the server wants a login"


@asynccontextmanager
async def open_mailer() -> AsyncIterator[Mailer]:
    """The mailer that the environment asks for; raises `ConfigurationError`."""
    sender = os.environ.get("MAIL_FROM") or _SENDER
    url = await secret("MAIL_URL")
    if url:
        yield SmtpMailer(_server(url), sender)
    else:
        yield FileMailer(Path(os.environ.get("MAIL_DIR") or "mail"), sender)


def _server(url: str) -> SmtpServer:
    parts = urlsplit(url)
    if parts.scheme != "smtp" or not parts.hostname:
        raise ConfigurationError(
            f"MAIL_URL is not the address of a mail server: {_HOW}, or unset it to write mail to "
            "files."
        )
    try:
        port = parts.port or 25
    except ValueError as error:
        raise ConfigurationError(f"MAIL_URL has no usable port: {_HOW}.") from error
    return SmtpServer(parts.hostname, port, parts.username, parts.password)
