"""where= filters: what they record, what they refuse, and that pattern and match agree."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PlainSerializer, RootModel

from headrace import Service
from headrace.errors import FilterError
from headrace.events import Event
from headrace.filters import Filter, exists, known, none_of, not_, one_of
from headrace.limits import EVENT_PATTERN_CHARACTERS
from headrace.testing.patterns import matches as pattern_matches


class Status(StrEnum):
    NEW = "new"
    PAID = "paid"
    GONE = "gone"


class Channel(Enum):
    WEB = "web"
    SHOP = "shop"


class Priority(IntEnum):
    LOW = 1
    HIGH = 9


class Address(BaseModel):
    city: str
    floor: int | None = None


class Tags(RootModel[list[str]]):
    pass


class Placed(Event, source="shop.order", name="FilteredOrder"):
    total: int
    weight: float = 1.5
    country: str
    coupon: str | None = None
    discount: int | None = None
    paid: bool
    gift: bool | None = None
    status: Status
    channel: Channel | None = None
    priority: Priority = Priority.LOW
    size: Literal["S", "M", "L"] = "M"
    customer: UUID
    vat_id: str = Field(default="", alias="vatId")
    billing: Address
    shipping: Address | None = None
    price: Decimal = Decimal(1)
    due: datetime | None = None
    lines: list[str] = Field(default=[])
    tags: Tags | None = None
    mixed: int | str = 0
    hidden: str = Field(default="", exclude=True)
    loud: Annotated[str, PlainSerializer(str.upper)] = ""


SOMEONE = UUID(int=7)

Where: TypeAlias = Callable[[Any], object]


def placed(**fields: Any) -> Placed:
    given: dict[str, Any] = {
        "total": 50,
        "country": "DE",
        "paid": True,
        "status": "new",
        "customer": SOMEONE,
        "billing": {"city": "Bonn"},
    }
    return Placed.model_validate({**given, **fields})


def pattern(where: Where) -> dict[str, Any]:
    return Filter.of([Placed], where).pattern


def payload(event: Event) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(event.model_dump_json(by_alias=True))
    return sent


def refusal(where: Where) -> str:
    with pytest.raises(FilterError) as caught:
        Filter.of([Placed], where)
    return str(caught.value)


# --- what becomes of a condition -------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (lambda e: e.total > 100, {"total": [{"numeric": [">", 100]}]}),
        (lambda e: e.total == 100, {"total": [{"numeric": ["=", 100]}]}),
        (lambda e: e.total >= 0.5, {"total": [{"numeric": [">=", 0.5]}]}),
        (lambda e: e.total != 5, {"total": [{"anything-but": [5]}]}),
        (lambda e: e.country == "DE", {"country": ["DE"]}),
        (lambda e: e.country != "DE", {"country": [{"anything-but": ["DE"]}]}),
        (lambda e: e.country.startswith("D"), {"country": [{"prefix": "D"}]}),
        (lambda e: e.country.endswith("E"), {"country": [{"suffix": "E"}]}),
        (lambda e: ~e.country.startswith("D"), {"country": [{"anything-but": {"prefix": "D"}}]}),
        (lambda e: one_of(e.country, "FR", "DE"), {"country": ["DE", "FR"]}),
        (lambda e: none_of(e.country, "FR", "DE"), {"country": [{"anything-but": ["DE", "FR"]}]}),
        (lambda e: e.paid, {"paid": [True]}),
        (lambda e: ~e.paid, {"paid": [False]}),
        (lambda e: e.paid == False, {"paid": [False]}),  # noqa: E712 - the form under test
        (lambda e: e.status == Status.PAID, {"status": ["paid"]}),
        (lambda e: e.status == "paid", {"status": ["paid"]}),
        (lambda e: e.priority > Priority.LOW, {"priority": [{"numeric": [">", 1]}]}),
        (lambda e: e.customer == SOMEONE, {"customer": [str(SOMEONE)]}),
        (lambda e: e.vat_id == "X", {"vatId": ["X"]}),
        (lambda e: e.billing.city == "Bonn", {"billing": {"city": ["Bonn"]}}),
    ],
)
def test_a_comparison_becomes_the_pattern_of_its_field(
    where: Where, expected: dict[str, Any]
) -> None:
    assert pattern(where) == expected


def test_conditions_on_several_fields_stand_side_by_side() -> None:
    found = pattern(lambda e: (e.total > 100) & (e.country == "DE") & e.paid)

    assert found == {
        "country": ["DE"],
        "paid": [True],
        "total": [{"numeric": [">", 100]}],
    }


def test_two_bounds_of_one_number_become_one_range() -> None:
    found = pattern(lambda e: (e.total > 100) & (e.total <= 500))

    assert found == {"total": [{"numeric": [">", 100, "<=", 500]}]}


def test_alternatives_of_one_field_become_values_of_one_list() -> None:
    found = pattern(lambda e: (e.total < 1) | (e.total > 9) | (e.total == 5))

    numeric = [["<", 1], ["=", 5], [">", 9]]
    assert found == {"total": [{"numeric": each} for each in numeric]}


def test_alternatives_of_several_fields_become_an_or() -> None:
    found = pattern(lambda e: (e.total > 100) | (e.country == "DE"))

    assert found == {"$or": [{"total": [{"numeric": [">", 100]}]}, {"country": ["DE"]}]}


def test_what_all_alternatives_share_is_said_once() -> None:
    found = pattern(lambda e: e.paid & ((e.total > 100) | (e.country == "DE")))

    assert found["paid"] == [True]
    assert found["$or"] == [{"total": [{"numeric": [">", 100]}]}, {"country": ["DE"]}]


def test_a_denied_conjunction_becomes_alternatives_by_de_morgan() -> None:
    found = pattern(lambda e: not_(e.paid & (e.total > 100)))

    assert found == {"$or": [{"paid": [False]}, {"total": [{"numeric": ["<=", 100]}]}]}


def test_missing_means_null_or_not_there_at_all() -> None:
    assert pattern(lambda e: e.coupon == None) == {  # noqa: E711 - the form under test
        "coupon": [None, {"exists": False}]
    }


def test_unequal_holds_for_a_missing_field_as_it_does_in_python() -> None:
    where = Filter.of([Placed], lambda e: e.coupon != "X")

    assert where.pattern == {"coupon": [{"anything-but": ["X"]}, {"exists": False}]}
    assert where.matches(placed(coupon=None))


def test_an_optional_model_is_there_if_a_field_is_that_it_must_have() -> None:
    assert pattern(lambda e: exists(e.shipping)) == {"shipping": {"city": [{"exists": True}]}}


def test_a_field_of_a_model_that_is_not_there_is_missing() -> None:
    where = Filter.of([Placed], lambda e: e.shipping.city == "Bonn")

    assert not where.matches(placed(shipping=None))


def test_a_field_that_a_producer_leaves_out_counts_as_its_default() -> None:
    where = Filter.of([Placed], lambda e: e.size == "M")
    sent = payload(placed())
    del sent["size"]

    assert where.matches(Placed.model_validate(sent))
    assert pattern_matches(where.pattern, sent)


def test_of_an_enum_a_denial_that_null_would_pass_is_a_list_of_the_others() -> None:
    found = pattern(lambda e: exists(e.channel) & (e.channel != Channel.WEB))

    assert found == {"channel": ["shop"]}


def test_types_with_different_json_names_have_patterns_of_their_own() -> None:
    class Shipped(Event, source="shop.order", name="FilteredShipped"):
        total: int = Field(alias="sum")

    where = Filter.of([Placed, Shipped], lambda e: e.total > 1)

    assert where.pattern_for(Placed) == {"total": [{"numeric": [">", 1]}]}
    assert where.pattern_for(Shipped) == {"sum": [{"numeric": [">", 1]}]}
    assert where.pattern == {"$or": [where.pattern_for(Placed), where.pattern_for(Shipped)]}


def test_a_filter_reads_as_a_sentence() -> None:
    where = Filter.of(
        [Placed],
        lambda e: ((e.total > 100) | e.paid) & none_of(e.country, "DE", "FR") & exists(e.coupon),
    )

    assert str(where) == (
        "(total is more than 100 or paid is true) and country is not 'DE' or 'FR' and "
        "coupon is there"
    )


def test_an_optional_field_can_be_compared_as_if_it_were_always_there() -> None:
    service = Service("filtered")

    @service.on(Placed, where=lambda e: (known(e.discount) > 5) | (known(e.shipping).floor == 1))
    async def deliver(event: Placed) -> None: ...

    (handler,) = service.handlers
    assert handler.accepts(placed(discount=6))
    assert handler.accepts(placed(shipping={"city": "Bonn", "floor": 1}))
    assert not handler.accepts(placed())


def test_the_functions_work_on_plain_values_too() -> None:
    event = placed(coupon="X")

    assert one_of(event.country, "DE", "FR")
    assert none_of(event.country, "FR")
    assert exists(event.coupon)
    assert not exists(event.shipping)
    assert not_(event.total > 100)
    assert known(event.coupon) == "X"
    with pytest.raises(FilterError, match="for where= only"):
        known(event.shipping)


# --- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (lambda e: e.paid and e.total > 1, "(a) & (b)"),
        (lambda e: e.paid or e.total > 1, "(a) | (b)"),
        (lambda e: not e.paid, "not_(a)"),
        (lambda e: e.total in (1, 2), "one_of(e.field, …)"),
        (lambda e: e.country in {"DE"}, "one_of(e.field, …)"),
        (lambda e: 1 < e.total < 5, "(low <= e.field) & (e.field < high)"),
        (lambda e: e.total > 1 & e.paid, "parentheses"),
        (lambda e: e.coupon is None, "exists(e.field)"),
        (lambda e: True, "exists(e.field)"),
        (lambda e: "x" in e.country, "contains"),
        (lambda e: e.total, "compare it with a value"),
        (lambda e: (e.total > 1) == True, "join conditions"),  # noqa: E712 - a mistake under test
        (lambda e: e.total + 1 > 5, "arithmetic"),
        (lambda e: len(e.country) > 5, "filter in the handler"),
        (lambda e: e.country.lower() == "de", ".lower"),
        (lambda e: e.nope == 1, "has no field 'nope'"),
        (lambda e: e.billing.street == "x", "has no field 'street'"),
        (lambda e: e.total > e.weight, "another field"),
        (lambda e: e.price > 5, "travels as text"),
        (lambda e: e.price == Decimal(5), "travels as text"),
        (lambda e: e.due > datetime.min, "travels as text"),
        (lambda e: e.lines == "x", "is a list"),
        (lambda e: e.lines[0] == "x", "is a list"),
        (lambda e: exists(e.tags), "cannot test"),
        (lambda e: e.mixed == 1, "several types"),
        (lambda e: e.hidden == "x", "excluded"),
        (lambda e: e.loud == "X", "serializer"),
        (lambda e: e.billing == 5, "compare its fields"),
        (lambda e: e.country > "A", "only numbers"),
        (lambda e: e.total > 6_000_000_000, "-5e9 to 5e9"),
        (lambda e: e.weight == 0.0000001, "6 decimals"),
        (lambda e: e.weight == float("nan"), "-5e9 to 5e9"),
        (lambda e: e.total == "5", "can never be"),
        (lambda e: e.total == True, "can never be"),  # noqa: E712 - a mistake under test
        (lambda e: e.paid == 1, "can never be"),
        (lambda e: e.size == "XL", "one of 'S', 'M', 'L'"),
        (lambda e: e.status == "lost", "one of 'new', 'paid', 'gone'"),
        (lambda e: e.channel == "web", "can never be"),
        (lambda e: e.country == None, "never None"),  # noqa: E711 - a mistake under test
        (lambda e: e.discount < None, "exists(…)"),
        (lambda e: e.country.startswith(""), "give one string"),
        (lambda e: e.total.startswith("1"), "is not text"),
        (lambda e: one_of(e.country), "name at least one"),
        (lambda e: (e.total > 1) & (e.total < 1), "can never be true"),
        (lambda e: (e.total > 1) | (e.total <= 1), "always true"),
        (lambda e: exists(e.coupon) & (e.coupon != "X"), "null"),
        (lambda e: e.country.startswith("A") & e.country.endswith("B"), "at once"),
        (lambda e: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_a_pattern_cannot_say_is_refused_with_what_to_write(where: Where, said: str) -> None:
    assert said in refusal(where)


def test_a_refusal_names_the_event_and_the_place_of_the_filter() -> None:
    said = refusal(lambda e: e.nope == 1)

    assert "FilteredOrder" in said
    assert f"{__name__}, line " in said


def test_a_pattern_over_the_limit_is_refused_with_the_numbers() -> None:
    values = [f"{n:04}" for n in range(1000)]

    said = refusal(lambda e: one_of(e.country, *values))

    assert f"{EVENT_PATTERN_CHARACTERS:,}" in said


class Wide(Event, source="shop.order", name="FilteredWide"):
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int
    h: int
    i: int
    j: int
    k: int
    l: int  # noqa: E741 - one of many
    m: int
    n: int
    o: int
    p: int
    q: int
    r: int
    s: int
    t: int


def test_more_alternatives_than_eventbridge_takes_are_refused() -> None:
    def either(wide: Any, pair: str) -> Any:
        return (getattr(wide, pair[0]) == 1) | (getattr(wide, pair[1]) == 1)

    def where(wide: Any) -> object:
        pairs = ["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op", "qr", "st"]
        return functools.reduce(operator.and_, (either(wide, pair) for pair in pairs))

    with pytest.raises(FilterError, match="more than 1,000 alternatives"):
        Filter.of([Wide], where)


def test_a_field_named_as_an_operator_is_refused_within_an_or() -> None:
    class Odd(Event, source="shop.order", name="FilteredOdd"):
        prefix: str
        total: int

    assert Filter.of([Odd], lambda e: e.prefix == "x").pattern == {"prefix": ["x"]}
    with pytest.raises(FilterError, match="alias"):
        Filter.of([Odd], lambda e: (e.prefix == "x") | (e.total > 1))


# --- the property: pattern and match agree, and with Python ----------------------------

texts = st.sampled_from(["", "D", "DE", "DEX", "FR", "X", "XDE"])
numbers = st.sampled_from([-5_000_000_000, -1, 0, 1, 5, 100, 5_000_000_000])

events = st.builds(
    placed,
    total=numbers,
    weight=st.sampled_from([-0.5, 0.0, 0.000001, 1.0, 1.5, 100.0]),
    country=texts,
    coupon=st.none() | texts,
    discount=st.none() | numbers,
    paid=st.booleans(),
    gift=st.none() | st.booleans(),
    status=st.sampled_from(Status),
    channel=st.none() | st.sampled_from(Channel),
    priority=st.sampled_from(Priority),
    size=st.sampled_from("SML"),
    customer=st.sampled_from([SOMEONE, UUID(int=8)]),
    vatId=texts,
    billing=st.fixed_dictionaries({"city": texts, "floor": st.none() | numbers}),
    shipping=st.none() | st.fixed_dictionaries({"city": texts, "floor": st.none() | numbers}),
    due=st.none() | st.just("2026-01-01T00:00:00Z"),
)

orders: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a == b,
    lambda a, b: a != b,
    lambda a, b: a < b,
    lambda a, b: a <= b,
    lambda a, b: a > b,
    lambda a, b: a >= b,
]
equalities = orders[:2]
affixes: list[Callable[[Any, str], Any]] = [
    lambda a, b: a.startswith(b),
    lambda a, b: a.endswith(b),
]


def comparing(
    read: Callable[[Any], Any], compare: list[Callable[[Any, Any], Any]], constants: Any
) -> st.SearchStrategy[Where]:
    return st.builds(
        lambda how, constant: lambda e: how(read(e), constant),
        st.sampled_from(compare),
        constants,
    )


some_texts = texts.filter(bool)
python_too = st.one_of(
    comparing(lambda e: e.total, orders, numbers),
    comparing(lambda e: e.weight, orders, st.sampled_from([0, 0.000001, 1, 1.5])),
    comparing(lambda e: e.priority, orders, st.sampled_from(Priority)),
    comparing(lambda e: e.country, equalities, texts),
    comparing(lambda e: e.country, affixes, some_texts),
    comparing(lambda e: e.vat_id, affixes, some_texts),
    comparing(lambda e: e.coupon, equalities, st.none() | texts),
    comparing(lambda e: e.discount, equalities, st.none() | numbers),
    comparing(lambda e: e.gift, equalities, st.none() | st.booleans()),
    comparing(lambda e: e.status, equalities, st.sampled_from(Status)),
    comparing(lambda e: e.channel, equalities, st.none() | st.sampled_from(Channel)),
    comparing(lambda e: e.size, equalities, st.sampled_from("SML")),
    comparing(lambda e: e.customer, equalities, st.just(SOMEONE)),
    comparing(lambda e: e.billing.city, equalities, texts),
    st.sampled_from(
        [lambda e: e.paid, lambda e: exists(e.shipping), lambda e: exists(e.due)],
    ),
    st.builds(lambda some: lambda e: one_of(e.country, *some), st.lists(texts, min_size=1)),
)
recorded_only = st.one_of(
    comparing(lambda e: e.discount, orders[2:], numbers),
    comparing(lambda e: e.coupon, affixes, some_texts),
    comparing(lambda e: e.shipping.city, equalities, texts),
    comparing(lambda e: e.shipping.city, affixes, some_texts),
    comparing(lambda e: e.shipping.floor, orders, numbers),
)


def joined(leaves: st.SearchStrategy[Where]) -> st.SearchStrategy[Where]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda a, b: lambda e: a(e) & b(e), inner, inner),
            st.builds(lambda a, b: lambda e: a(e) | b(e), inner, inner),
            st.builds(lambda a: lambda e: not_(a(e)), inner),
        ),
        max_leaves=6,
    )


def recorded(where: Where) -> Filter:
    try:
        return Filter.of([Placed], where)
    except FilterError:
        return reject()


@settings(max_examples=100, deadline=None)
@given(where=joined(python_too | recorded_only), some=st.lists(events, min_size=1, max_size=8))
def test_the_pattern_takes_an_event_exactly_when_the_filter_matches(
    where: Where, some: list[Placed]
) -> None:
    found = recorded(where)

    for event in some:
        assert pattern_matches(found.pattern, payload(event)) == found.matches(event), str(found)


@settings(max_examples=100, deadline=None)
@given(where=joined(python_too), some=st.lists(events, min_size=1, max_size=8))
def test_a_filter_matches_exactly_when_its_lambda_is_true_of_the_event(
    where: Where, some: list[Placed]
) -> None:
    found = recorded(where)

    for event in some:
        assert found.matches(event) == bool(where(event)), str(found)
