"""What conditions and updates share: walking the tokens, paths and values."""

from __future__ import annotations

from headrace.errors import Refused
from headrace.testing.expressions.reserved import RESERVED
from headrace.testing.expressions.symbols import Symbols
from headrace.testing.expressions.syntax import Literal, Path
from headrace.testing.expressions.tokens import Token, tokens
from headrace.testing.expressions.values import invalid


class Parser:
    """A recursive-descent parser: each method reads one thing and stands behind it."""

    def __init__(self, text: str, symbols: Symbols) -> None:
        self._text = text
        self._symbols = symbols
        self._tokens = tokens(text)
        self._at = 0

    # --- tokens ---

    def peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def take(self) -> Token:
        token = self.peek()
        self._at += 1
        return token

    def accept(self, text: str) -> bool:
        """Step over `text`, a symbol or a keyword in any case, if it comes next."""
        found = text in (self.peek().keyword, self.peek().text)
        self._at += found
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"expected {text!r}")

    def expect_end(self) -> None:
        if self.peek().kind != "end":
            raise self.error("expected the end")

    def error(self, why: str) -> Refused:
        return invalid(f"Syntax error in {self._text!r} at {self.peek().text!r}: {why}.")

    def at_function(self) -> bool:
        return self.peek().kind == "word" and self.peek(1).text == "("

    # --- operands ---

    def value(self) -> Literal:
        if self.peek().kind != "value":
            raise self.error("expected a :value")
        return self._symbols.value(self.take().text)

    def path(self) -> Path:
        steps: list[str | int] = [self._name()]
        while True:
            if self.accept("."):
                steps.append(self._name())
            elif self.accept("["):
                steps.append(self._index())
            else:
                return Path(tuple(steps))

    def _name(self) -> str:
        token = self.peek()
        if token.kind == "name":
            return self._symbols.name(self.take().text)
        if token.kind != "word":
            raise self.error("expected an attribute name")
        if token.keyword in RESERVED:
            raise invalid(
                f"The attribute name {token.text!r} is a reserved word; "
                f"write #{token.text} and give it in `names`."
            )
        return self.take().text

    def _index(self) -> int:
        if self.peek().kind != "index":
            raise self.error("expected an index")
        index = int(self.take().text)
        self.expect("]")
        return index


def require_distinct(first: object, *others: object) -> None:
    """DynamoDB refuses a comparison of an attribute with itself."""
    if isinstance(first, Path) and first in others:
        raise invalid(f"The first operand, {first}, must be distinct from the others.")
