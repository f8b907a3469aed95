"""The `#names` and `:values` of one request, and which of them its expressions used."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.ports import AttributeValue
from headrace.testing.expressions.syntax import Literal
from headrace.testing.expressions.values import invalid, stored


class Symbols:
    """What one action's expressions may refer to. DynamoDB refuses what is not defined as
    well as what is defined and not used."""

    def __init__(self, names: Mapping[str, str], values: Mapping[str, AttributeValue]) -> None:
        self._names = names
        self._values = {name: stored(value) for name, value in values.items()}
        self._unused = {*names, *values}

    def name(self, symbol: str) -> str:
        if symbol not in self._names:
            raise invalid(f"The attribute name {symbol} is not defined; give it in `names`.")
        self._unused.discard(symbol)
        return self._names[symbol]

    def value(self, symbol: str) -> Literal:
        if symbol not in self._values:
            raise invalid(f"The value {symbol} is not defined; give it in `values`.")
        self._unused.discard(symbol)
        return Literal(symbol, self._values[symbol])

    def require_all_used(self) -> None:
        if self._unused:
            unused = ", ".join(sorted(self._unused))
            raise invalid(f"No expression uses {unused}; give only what is used.")
