"""Text that has to fit: what SQS carries, and what a person reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

REASON_CHARACTERS: Final = 2_000
"""How much of a reason is kept: enough for a sentence and its cause, and little enough that a
log line and a message attribute always have room for it."""

_SOME: Final = 10


def xml_legal(json: str) -> str:
    """JSON with only characters that SQS takes, which are those that XML allows. JSON escapes
    the others by itself; these two are legal in it and are not."""
    return json.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def text_size(text: str) -> int:
    """Bytes of a text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


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


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "There are") -> str:
    """The sentence after one that says that there is nothing of this name: the nearest of those
    that there are, or the first of all."""
    # Late, as it costs something, and only who has misspelled something needs it.
    from difflib import get_close_matches

    names = sorted(known)
    if close := get_close_matches(name, names, n=3):
        return f"Did you mean {' or '.join(close)}?"
    if len(names) == 1:
        return f"The only one is {names[0]}."
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    return f"{otherwise} {', '.join(names[:_SOME]) or 'none'}{more}."


def counted(number: int, what: str) -> str:
    """`1 letter`, `2 letters`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
