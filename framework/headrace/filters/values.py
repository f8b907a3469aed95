"""The values of one field that a condition allows, in the forms that a pattern can list.

Numbers are spans, so that every condition on them can be joined with every other. Texts are
a union of forms; two forms have an intersection only if one pattern form says it. `None` is
kept beside both, as it is not a value of the JSON type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, TypeAlias

from headrace.errors import FilterError

from .conditions import Operator, Test
from .fields import Field, Kind, Scalar

Matcher: TypeAlias = Any
"""One element of the list that a pattern has for a field."""


# --- numbers ---------------------------------------------------------------------------

Edge: TypeAlias = tuple[float, int]
"""A place on the number line: just before (0) or just after (1) a number."""

Span: TypeAlias = tuple[Edge, Edge]

_BOTTOM: Final[Edge] = (float("-inf"), 0)
_TOP: Final[Edge] = (float("inf"), 1)
_LARGEST: Final = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Numbers:
    """Spans in order, none touching the next."""

    spans: tuple[Span, ...]

    @classmethod
    def of(cls, operator: Operator, constants: Iterable[Any]) -> Numbers:
        return cls(_joined(_span(operator, constant) for constant in constants))

    @classmethod
    def all(cls, field: Field) -> Numbers:
        return cls(((_BOTTOM, _TOP),))

    def inverted(self) -> Numbers:
        edges = [_BOTTOM, *(edge for span in self.spans for edge in span), _TOP]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return Numbers(tuple(gap for gap in gaps if gap[0] < gap[1]))

    def __or__(self, other: Numbers) -> Numbers:
        return Numbers(_joined((*self.spans, *other.spans)))

    def __and__(self, other: Numbers) -> Numbers:
        return (self.inverted() | other.inverted()).inverted()

    @property
    def is_empty(self) -> bool:
        return not self.spans

    @property
    def is_all(self) -> bool:
        return self.spans == ((_BOTTOM, _TOP),)

    def holds(self, value: Any) -> bool:
        return any(start <= (value, 0) and (value, 1) <= end for start, end in self.spans)

    def matchers(self, *, null: bool | None) -> list[Matcher]:
        excluded = self.inverted()
        if null is not False and excluded.spans and all(map(_is_point, excluded.spans)):
            return [{"anything-but": [_plain(start[0]) for start, _ in excluded.spans]}]
        return [{"numeric": _numeric(span)} for span in self.spans] + ([None] if null else [])


def _span(operator: Operator, constant: float) -> Span:
    before, after = (constant, 0), (constant, 1)
    spans: dict[Operator, Span] = {
        Operator.IS: (before, after),
        Operator.BELOW: (_BOTTOM, before),
        Operator.AT_MOST: (_BOTTOM, after),
        Operator.ABOVE: (after, _TOP),
        Operator.AT_LEAST: (before, _TOP),
    }
    return spans[operator]


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _is_point(span: Span) -> bool:
    return span[0][0] == span[1][0]


def _numeric(span: Span) -> list[Any]:
    (low, after_low), (high, after_high) = span
    if low == high:
        return ["=", _plain(low)]
    if span == (_BOTTOM, _TOP):
        return [">=", -_LARGEST, "<=", _LARGEST]
    above = [] if span[0] == _BOTTOM else [">" if after_low else ">=", _plain(low)]
    below = [] if span[1] == _TOP else ["<=" if after_high else "<", _plain(high)]
    return above + below


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


# --- texts -----------------------------------------------------------------------------


class Form(Enum):
    """What a pattern can say of a text: each form is the test and, if negative, its denial."""

    IS = "is"
    STARTS = "prefix"
    ENDS = "suffix"
    IS_NOT = "anything-but"
    STARTS_NOT = "anything-but prefix"
    ENDS_NOT = "anything-but suffix"


_DENIALS: Final = {
    Form.IS: Form.IS_NOT,
    Form.STARTS: Form.STARTS_NOT,
    Form.ENDS: Form.ENDS_NOT,
}
_FORMS: Final = {
    Operator.IS: Form.IS,
    Operator.STARTS: Form.STARTS,
    Operator.ENDS: Form.ENDS,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """One form with its texts: any of them for a positive form, none of them for a denial."""

    form: Form
    texts: frozenset[str]

    @property
    def denies(self) -> bool:
        return self.form in _DENIALS.values()

    def holds(self, value: str) -> bool:
        return self.denies != any(_agrees(self.form, value, text) for text in self.texts)

    def without(self, texts: Iterable[str]) -> Shape:
        return Shape(self.form, self.texts - frozenset(texts))


def _agrees(form: Form, value: str, text: str) -> bool:
    if form in (Form.STARTS, Form.STARTS_NOT):
        return value.startswith(text)
    if form in (Form.ENDS, Form.ENDS_NOT):
        return value.endswith(text)
    return value == text


_ANY_TEXT: Final = Shape(Form.STARTS, frozenset({""}))
"""Any text, and only text."""


class Inexpressible(Exception):
    """One pattern cannot say both of two forms."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A union of shapes, at most one of each form. With `choices` there are no other texts."""

    shapes: frozenset[Shape]
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, field: Field, operator: Operator, constants: Iterable[Any]) -> Texts:
        shape = Shape(_FORMS[operator], frozenset(constants))
        return cls._joined([shape] if shape.texts else [], _texts(field.choices))

    @classmethod
    def all(cls, field: Field) -> Texts:
        return cls(frozenset({_ANY_TEXT}), _texts(field.choices))

    def inverted(self) -> Texts:
        """Only of one positive shape, as a test of one field is."""
        if self.is_empty:
            return Texts(frozenset({_ANY_TEXT}), self.choices)
        (shape,) = self.shapes
        if shape == _ANY_TEXT:
            return Texts(frozenset(), self.choices)
        return Texts(frozenset({Shape(_DENIALS[shape.form], shape.texts)}), self.choices)

    def __or__(self, other: Texts) -> Texts:
        return self._joined([*self.shapes, *other.shapes], self.choices)

    def __and__(self, other: Texts) -> Texts:
        try:
            met = [shape for a in self.shapes for b in other.shapes for shape in _meet(a, b)]
        except Inexpressible:
            if not self.choices:
                raise
            return self.listed(lambda choice: self.holds(choice) and other.holds(choice))
        return self._joined(met, self.choices)

    @property
    def is_empty(self) -> bool:
        return not any(map(self.holds, self.choices)) if self.choices else not self.shapes

    @property
    def is_all(self) -> bool:
        if self.choices:
            return all(map(self.holds, self.choices))
        return _ANY_TEXT in self.shapes

    def holds(self, value: Any) -> bool:
        return any(shape.holds(value) for shape in self.shapes)

    def listed(self, holds: Callable[[str], bool]) -> Texts:
        chosen = frozenset(choice for choice in self.choices if holds(choice))
        return Texts(frozenset({Shape(Form.IS, chosen)} if chosen else ()), self.choices)

    def matchers(self, *, null: bool | None) -> list[Matcher]:
        denies = any(shape.denies for shape in self.shapes)
        if denies and null is False:
            if not self.choices:
                raise Inexpressible
            return self.listed(self.holds).matchers(null=null)
        ordered = sorted(self.shapes, key=lambda shape: list(Form).index(shape.form))
        found = [matcher for shape in ordered for matcher in _matchers(shape)]
        return found + ([None] if null and not denies else [])

    @classmethod
    def _joined(cls, shapes: Iterable[Shape], choices: tuple[str, ...]) -> Texts:
        joined: dict[Form, Shape] = {}
        for shape in shapes:
            known = joined.get(shape.form)
            joined[shape.form] = _either(known, shape) if known else shape
        return cls(_simplified(joined), choices)


def _either(a: Shape, b: Shape) -> Shape:
    if not a.denies:
        return Shape(a.form, a.texts | b.texts)
    # A text escapes one denial or the other unless both deny it.
    return Shape(a.form, frozenset(text for text in a.texts | b.texts if _denied(a, b, text)))


def _denied(a: Shape, b: Shape, text: str) -> bool:
    return not a.holds(text) and not b.holds(text)


def _simplified(joined: dict[Form, Shape]) -> frozenset[Shape]:
    """Without what another shape already says."""
    shapes = dict(joined)
    for form in (Form.IS, Form.IS_NOT):
        if form in shapes:
            others = [shape for shape in shapes.values() if shape.form is not form]
            spoken = [t for t in shapes[form].texts if any(other.holds(t) for other in others)]
            shapes[form] = shapes[form].without(spoken)
    everything = any(shape.denies and not shape.texts for shape in shapes.values())
    if everything or (Form.STARTS in shapes and "" in shapes[Form.STARTS].texts):
        return frozenset({_ANY_TEXT})
    return frozenset(shape for shape in shapes.values() if shape.texts)


def _meet(a: Shape, b: Shape) -> list[Shape]:
    """The shapes that are both; raises `Inexpressible`."""
    if a.denies and a.form is b.form:
        return [Shape(a.form, a.texts | b.texts)]
    for one, other in ((a, b), (b, a)):
        if one == _ANY_TEXT:
            return [other]
        if one.form is Form.IS:
            return _kept(one, other.holds)
        if one.form is Form.IS_NOT and other.denies:
            return _within(other, one.without(t for t in one.texts if not other.holds(t)))
    if a.form is b.form:
        longer = [max(s, t, key=len) for s in a.texts for t in b.texts if _nested(a.form, s, t)]
        return [Shape(a.form, frozenset(longer))] if longer else []
    positive, denial = (a, b) if b.denies else (b, a)
    if positive.denies or not denial.denies:
        raise Inexpressible
    return _cut(positive, denial)


def _cut(positive: Shape, denial: Shape) -> list[Shape]:
    """What is left of some prefixes, or suffixes, when something is denied."""
    if _DENIALS[positive.form] is denial.form:
        kept = Shape(positive.form, frozenset(t for t in positive.texts if denial.holds(t)))
        rest = denial.without(t for t in denial.texts if not kept.holds(t))
    elif denial.form is Form.IS_NOT:
        kept, rest = positive, denial.without(t for t in denial.texts if not positive.holds(t))
    else:
        raise Inexpressible
    return _within(kept, rest)


def _within(kept: Shape, rest: Shape) -> list[Shape]:
    if rest.texts:
        raise Inexpressible
    return [kept] if kept.texts else []


def _kept(listed: Shape, holds: Callable[[str], bool]) -> list[Shape]:
    kept = frozenset(filter(holds, listed.texts))
    return [Shape(Form.IS, kept)] if kept else []


def _nested(form: Form, a: str, b: str) -> bool:
    return _agrees(form, a, b) or _agrees(form, b, a)


def _matchers(shape: Shape) -> list[Matcher]:
    texts = sorted(shape.texts)
    if shape == _ANY_TEXT:
        return [{"wildcard": "*"}]
    if shape.form is Form.IS:
        return list(texts)
    if shape.form is Form.IS_NOT:
        return [{"anything-but": texts}]
    if shape.denies:
        affix = shape.form.value.removeprefix("anything-but ")
        return [{"anything-but": {affix: texts[0] if len(texts) == 1 else texts}}]
    return [{shape.form.value: text} for text in texts]


def _texts(choices: tuple[Scalar, ...]) -> tuple[str, ...]:
    return tuple(str(choice) for choice in choices)


# --- flags -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flags:
    """Some of true and false."""

    chosen: frozenset[bool]

    @classmethod
    def all(cls, field: Field) -> Flags:
        return cls(frozenset({True, False}))

    def inverted(self) -> Flags:
        return Flags(frozenset({True, False}) - self.chosen)

    def __or__(self, other: Flags) -> Flags:
        return Flags(self.chosen | other.chosen)

    def __and__(self, other: Flags) -> Flags:
        return Flags(self.chosen & other.chosen)

    @property
    def is_empty(self) -> bool:
        return not self.chosen

    @property
    def is_all(self) -> bool:
        return len(self.chosen) == 2

    def holds(self, value: Any) -> bool:
        return value in self.chosen

    def matchers(self, *, null: bool | None) -> list[Matcher]:
        return [*sorted(self.chosen, reverse=True), *([None] if null else [])]


# --- a field's values, with None -------------------------------------------------------

_Core: TypeAlias = Numbers | Texts | Flags


@dataclass(frozen=True, slots=True)
class Values:
    """What a field may be: some of its values, and `None` or not."""

    field: Field
    core: Any
    none: bool

    @classmethod
    def of(cls, test: Test, *, inverted: bool) -> Values:
        constants = [constant for constant in test.constants if constant is not None]
        core = _core_of(test.field, test.operator, constants)
        none = test.field.optional and None in test.constants
        if inverted:
            return cls(test.field, core.inverted(), test.field.optional and not none)
        return cls(test.field, core, none)

    def __or__(self, other: Values) -> Values:
        return replace(self, core=self.core | other.core, none=self.none or other.none)

    def __and__(self, other: Values) -> Values:
        try:
            return replace(self, core=self.core & other.core, none=self.none and other.none)
        except Inexpressible:
            raise _inexpressible(self.field) from None

    @property
    def is_empty(self) -> bool:
        return bool(self.core.is_empty) and not self.none

    @property
    def is_all(self) -> bool:
        return bool(self.core.is_all) and (self.none or not self.field.optional)

    def holds(self, value: Scalar | None) -> bool:
        return self.none if value is None else bool(self.core.holds(value))

    def matchers(self) -> list[Matcher]:
        """The list that a pattern has for the field; raises `FilterError`."""
        return self._present() + ([{"exists": False}] if self._takes_missing() else [])

    def _present(self) -> list[Matcher]:
        if self.core.is_all and (self.none or not self.field.nullable):
            return [{"exists": True}]
        if self.core.is_empty:
            return [None] if self.none and self.field.nullable else []
        try:
            return list(self.core.matchers(null=self.none if self.field.nullable else None))
        except Inexpressible:
            raise _inexpressible(self.field) from None

    def _takes_missing(self) -> bool:
        return self.field.any_missing or any(map(self.holds, self.field.missing))


def _core_of(field: Field, operator: Operator, constants: list[Any]) -> _Core:
    if field.kind is Kind.FLAG:
        return Flags(frozenset(constants))
    if field.kind is Kind.NUMBER:
        return Numbers.of(operator, constants)
    return Texts.of(field, operator, constants)


def _inexpressible(field: Field) -> FilterError:
    return FilterError(
        f"asks two things of {field.name} that EventBridge cannot ask of one field at once: of "
        "text it takes a list of values, prefixes or suffixes, or a list of what it must not be, "
        "which null is not either. Keep one of the two here and test the other in the handler."
    )
