"""Text that has to fit: what SQS carries, and what a person reads."""

from __future__ import annotations

from typing import Final

REASON_CHARACTERS: Final = 2_000
"""How much of a reason is kept: enough for a sentence and its cause, and little enough that a
log line and a message attribute always have room for it."""


def xml_legal(json: str) -> str:
    """JSON with only characters that SQS takes, which are those that XML allows. JSON escapes
    the others by itself; these two are legal in it and are not."""
    return json.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def shown(text: str) -> str:
    """Text that can be written as UTF-8, and only its two ends if there is too much of it.

    What a sender wrote, or a handler said, may be a megabyte long, or hold half of a surrogate
    pair, which has no UTF-8.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= REASON_CHARACTERS:
        return text
    half = REASON_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"
