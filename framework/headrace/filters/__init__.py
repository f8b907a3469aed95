"""`where=` filters: a condition on an event's fields that becomes a rule's pattern.

    @inventory.on(OrderPlaced, where=lambda e: (e.total > 100) & one_of(e.country, "DE", "FR"))

The lambda is called once, at import, with an object that records what is compared. It may
compare fields with constants by `==`, `!=`, `<`, `<=`, `>` and `>=`, ask for `.startswith()`
and `.endswith()`, use a boolean field as it stands, and join conditions by `&` and `|`.
Python cannot record `and`, `or`, `not`, `in` and `is`: this module has functions for what
they would say, which work on plain values too. `~` is `not_`, but type checkers refuse it.

A condition that EventBridge cannot express is refused at import. Two things it cannot even
see: numbers beyond ±5 × 10⁹ in an event match no comparison, and the seventh decimal place
of a number is not compared.
"""

from __future__ import annotations

from .filter import Filter
from .trace import exists, known, none_of, not_, one_of

__all__ = ["Filter", "exists", "known", "none_of", "not_", "one_of"]
