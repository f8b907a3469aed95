"""The words of an expression."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from headrace.testing.expressions.values import invalid

EXPRESSION_BYTES: Final = 4_096

_TOKEN: Final = re.compile(
    r"(?P<name>\#\w+)|(?P<value>:\w+)|(?P<word>[A-Za-z]\w*)|(?P<index>\d+)"
    r"|(?P<symbol><>|<=|>=|[=<>()\[\],.+-])|(?P<space>\s+)",
    re.ASCII,
)


class Token(NamedTuple):
    """`kind` is name, value, word, index, symbol or end; `text` is as written."""

    kind: str
    text: str

    @property
    def keyword(self) -> str:
        """The text in capitals if it is a word; keywords are known in any case."""
        return self.text.upper() if self.kind == "word" else ""


END: Final = Token("end", "")


@lru_cache(maxsize=256)
def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of an expression, `END` last. Raises `Refused` at the first character that
    begins none, and when the expression is empty or over 4 KB."""
    if not text.strip():
        raise invalid("The expression is empty.")
    if len(text.encode()) > EXPRESSION_BYTES:
        raise invalid(f"The expression is over the limit of {EXPRESSION_BYTES} bytes.")
    return (*_split(text), END)


def _split(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise invalid(f"Syntax error in {text!r} at {text[at : at + 10]!r}.")
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup, match.group()))
        at = match.end()
    return found
