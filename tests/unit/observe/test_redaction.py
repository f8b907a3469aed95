"""What is hidden of a message before anybody reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypeAlias,
    TypeVar,
)

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    Discriminator,
    Field,
    RootModel,
    SecretStr,
    StringConstraints,
    Tag,
    computed_field,
)
from typing_extensions import TypeAliasType, TypedDict

from headrace import Event, Sensitive
from headrace.envelope import root_metadata, seal
from headrace.events import json_schema
from headrace.observe.redaction import redacted, redacted_payload
from headrace.testing.memory.chance import EPOCH

Mail: TypeAlias = Annotated[str, StringConstraints(pattern="@"), Sensitive]
Phone = NewType("Phone", str)
Named = TypeAliasType("Named", Annotated[str, Sensitive])
T = TypeVar("T")


class Customer(BaseModel):
    name: str
    email: Mail


class Guest(BaseModel):
    name: str
    table: int


class Pair(NamedTuple):
    key: str
    secret: Annotated[str, Sensitive]


@dataclass
class Card:
    brand: str
    number: Annotated[str, Sensitive]


@dataclass
class Box(Generic[T]):
    label: Annotated[str, Sensitive]
    content: T


class Address(TypedDict):
    city: str
    street: NotRequired[Annotated[str, Sensitive]]


class Family(BaseModel):
    surname: Annotated[str, Sensitive]
    children: list[Family] = []


class Notes(RootModel[dict[str, list[Annotated[str, Sensitive]]]]):
    pass


class Tree(RootModel[Any]):
    root: dict[str, Tree] | list[Annotated[str, Sensitive]]


Unresolved = TypeAliasType("Unresolved", "list[str]")

CHIARA = Customer(name="Chiara", email="c@example.com")
HIDDEN_CHIARA = {"name": "Chiara", "email": "***"}


@pytest.fixture
def shown() -> Any:
    """What is left of a field that is annotated so and has this value."""

    def shown(annotation: Any, value: Any) -> Any:
        namespace = {"__annotations__": {"field": annotation}, "__module__": __name__}
        cls = type("Carrier", (BaseModel,), namespace)
        return redacted(cls(field=value))["field"]

    return shown


@pytest.mark.parametrize(
    ("annotation", "value", "left"),
    [
        (str, "x", "x"),
        (Any, {"a": 1}, {"a": 1}),
        (Decimal, Decimal("1.50"), "1.50"),
        (Annotated[str, Sensitive], "x", "***"),
        (Annotated[str, Sensitive()], "x", "***"),
        (Annotated[int, Field(ge=0), Sensitive], 1, "***"),
        (Annotated[str | None, Sensitive], None, "***"),
        (Annotated[str, Sensitive] | None, None, None),
        (Annotated[str, Sensitive] | None, "x", "***"),
        (Annotated[str, Sensitive] | int, 1, "***"),
        (Named, "x", "***"),
        (Annotated[Phone, Sensitive], Phone("1"), "***"),
        (SecretStr, SecretStr("x"), "***"),
        (SecretStr | None, SecretStr("x"), "***"),
        (Customer, CHIARA, HIDDEN_CHIARA),
        (Customer | None, CHIARA, HIDDEN_CHIARA),
        (Customer | None, None, None),
        (Annotated[Customer, Sensitive], CHIARA, "***"),
        (list[Customer], [CHIARA, CHIARA], [HIDDEN_CHIARA, HIDDEN_CHIARA]),
        (tuple[Customer, ...], (CHIARA,), [HIDDEN_CHIARA]),
        (tuple[int, Annotated[str, Sensitive]], (1, "x"), [1, "***"]),
        (set[Annotated[str, Sensitive]], {"x"}, ["***"]),
        (list[Annotated[str, Sensitive]], ["x", "y"], ["***", "***"]),
        (Annotated[list[str], Sensitive], ["x", "y"], "***"),
        (dict[str, Customer], {"a": CHIARA}, {"a": HIDDEN_CHIARA}),
        (dict[str, list[Named]], {"a": ["x"]}, {"a": ["***"]}),
        (dict[Annotated[str, Sensitive], int], {"x": 1}, "***"),
        (Pair, Pair("k", "x"), ["k", "***"]),
        (Card, Card("visa", "x"), {"brand": "visa", "number": "***"}),
        (Box[int], Box("x", 1), {"label": "***", "content": 1}),
        (Address, {"city": "Rome", "street": "x"}, {"city": "Rome", "street": "***"}),
        (Address, {"city": "Rome"}, {"city": "Rome"}),
        (
            Family,
            Family(surname="x", children=[Family(surname="y")]),
            {"surname": "***", "children": [{"surname": "***", "children": []}]},
        ),
        (Notes, Notes({"a": ["x"]}), {"a": ["***"]}),
        (Tree, Tree.model_validate({"a": {"b": ["x"]}}), {"a": {"b": ["***"]}}),
        (Unresolved, ["x"], "***"),
        (Customer | Guest, CHIARA, HIDDEN_CHIARA),
        (Guest | Customer, Guest(name="Ada", table=3), {"name": "Ada", "table": 3}),
        (Customer | str, "x", "x"),
        (Literal["a", "b"], "a", "a"),
        (
            Annotated[
                Annotated[Customer, Tag("c")] | Annotated[Guest, Tag("g")],
                Discriminator(lambda value: "c" if isinstance(value, Customer) else "g"),
            ],
            CHIARA,
            HIDDEN_CHIARA,
        ),
    ],
    ids=lambda case: re.sub(r" at 0x\w+", "", str(case)),
)
def test_a_marked_part_of_a_field_is_hidden_and_the_rest_is_not(
    shown: Any, annotation: Any, value: Any, left: Any
) -> None:
    assert shown(annotation, value) == left


def test_the_argument_of_a_generic_class_that_is_marked_hides_all_of_it(shown: Any) -> None:
    assert shown(Box[Annotated[str, Sensitive]], Box("x", "y")) == "***"


class ParcelSent(Event, source="shop.redaction"):
    order_id: str
    email: Mail = Field(alias="mail")
    note: Annotated[str, Sensitive] = "none"

    @computed_field
    def host(self) -> Annotated[str, Sensitive]:
        return self.email.partition("@")[2]


PARCEL = ParcelSent(order_id="W1", mail="c@example.com")


def test_a_field_is_hidden_under_the_name_that_it_is_sent_by_and_by_its_default_too() -> None:
    assert redacted(PARCEL) == {"order_id": "W1", "mail": "***", "note": "***", "host": "***"}


def test_what_is_sent_is_not_changed_by_a_mark() -> None:
    sent = seal(PARCEL, root_metadata(PARCEL, id="e-1", now=EPOCH)).detail
    assert '"mail":"c@example.com"' in sent
    assert "Sensitive" not in str(json_schema(ParcelSent))


def test_a_message_without_marks_is_shown_as_it_is_sent() -> None:
    guest = Guest(name="Ada", table=3)
    assert redacted(guest) == guest.model_dump(mode="json")


# --- what came as JSON, and may not be valid ---------------------------------------------


class Renamed(BaseModel):
    kind: str
    # The plugin of mypy cannot read several aliases.
    email: Mail = Field(  # type: ignore[pydantic-alias]
        serialization_alias="email",
        validation_alias=AliasChoices("email", "e_mail", AliasPath("contact", "mail")),
    )


@pytest.mark.parametrize("name", ["email", "e_mail", "contact"])
def test_json_is_hidden_under_every_name_that_it_is_read_by(name: str) -> None:
    payload = {"kind": "k", name: {"mail": "c@example.com"}}
    assert redacted_payload(Renamed, payload) == {"kind": "k", name: "***"}


def test_a_name_that_a_class_with_marks_does_not_know_is_hidden() -> None:
    payload = {"order_id": "W1", "e-mail": "c@example.com"}
    assert redacted_payload(ParcelSent, payload) == {"order_id": "W1", "e-mail": "***"}


def test_a_name_that_a_class_without_marks_does_not_know_is_shown() -> None:
    assert redacted_payload(Guest, {"name": "Ada", "seat": 3}) == {"name": "Ada", "seat": 3}


class Shipment(BaseModel):
    to: Customer
    copies: list[Customer]
    by: dict[str, Annotated[str, Sensitive]]
    stops: tuple[int, Annotated[str, Sensitive]]
    crew: Customer | Guest
    weight: list[int]


@pytest.mark.parametrize(
    ("payload", "left"),
    [
        ({"to": "c@example.com"}, {"to": "***"}),
        ({"to": ["c@example.com"]}, {"to": "***"}),
        ({"copies": {"email": "x"}}, {"copies": "***"}),
        ({"copies": ["c@example.com"]}, {"copies": ["***"]}),
        ({"by": ["x"]}, {"by": "***"}),
        ({"stops": [1, "x", "y"]}, {"stops": [1, "***", "***"]}),
        ({"crew": "c@example.com"}, {"crew": "***"}),
        ({"weight": "heavy"}, {"weight": "heavy"}),
        ({"to": None}, {"to": "***"}),
        ("c@example.com", {"payload": "***"}),
    ],
    ids=str,
)
def test_json_of_another_shape_than_its_field_is_hidden_where_that_hides_anything(
    payload: Any, left: Any
) -> None:
    assert redacted_payload(Shipment, payload) == left


def test_a_union_hides_what_any_of_its_members_would() -> None:
    crew = {"name": "Ada", "table": 3, "email": "c@example.com", "phone": "1"}
    left = {"crew": {"name": "Ada", "table": 3, "email": "***", "phone": "***"}}
    assert redacted_payload(Shipment, {"crew": crew}) == left
