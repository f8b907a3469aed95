"""What a run is told by the shell, and what of it does not count."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Final

MAIL: Final = "mail"
PAYMENTS: Final = "payments"
"""What the services write for the world outside, in the folder of a run."""


def write_into(folder: Path) -> None:
    """Mail goes to files, whatever mail server the shell names, and the bank keeps its book
    beside them."""
    os.environ.pop("MAIL_URL", None)
    os.environ["MAIL_DIR"] = str(folder / MAIL)
    os.environ["PAYMENTS_DIR"] = str(folder / PAYMENTS)


def wait_for_answers(seconds: float) -> None:
    """How long a checkout waits for each, where the shell does not say. It counts for processes
    that are started later, and here only before `services.order.saga` is imported."""
    if not os.environ.get("SHOP_ANSWER_SECONDS"):
        os.environ["SHOP_ANSWER_SECONDS"] = f"{seconds:g}"


def forget_aws() -> None:
    """Whatever account or endpoint the shell is set to, an emulator of our own is used."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "LOCALSTACK_", "USE_LOCALSTACK")):
            del os.environ[name]
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")


def number_of_orders(text: str) -> int:
    """The type of an `--orders` argument."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number of orders: give at least 1")
    return int(text)
