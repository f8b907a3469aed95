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
    """Text that can be written as UTF-8, and not too much of it."""
    if len(text) > REASON_CHARACTERS:
        text = f"{text[:REASON_CHARACTERS]}… ({len(text):,} characters)"
    return text.encode("utf-8", "backslashreplace").decode()
