"""Events and commands say clearly what they are, and refuse what cannot work."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from headrace.entity import Entity
from headrace.errors import DefinitionError, DuplicateName
from headrace.events import (
    Command,
    Event,
    contract_of,
    ensure_buildable,
    json_schema,
    registry,
    upcaster,
)


@pytest.fixture(autouse=True)
def every_name_is_free() -> Iterator[None]:
    with registry.scratch(empty=True):
        yield


def test_the_wire_name_of_an_event_is_its_class_name_unless_chosen() -> None:
    class Shipped(Event, source="shop.shipping"): ...

    class Returned(Event, source="shop.shipping", name="Parcel Returned", version=3): ...

    assert contract_of(Shipped).name == "Shipped"
    assert contract_of(Returned).name == "Parcel Returned"
    assert contract_of(Returned).version == 3


def test_an_event_cannot_be_changed() -> None:
    class Shipped(Event, source="shop.shipping"):
        parcel: str

    with pytest.raises(ValueError, match="frozen"):
        Shipped(parcel="P-1").parcel = "P-2"  # type: ignore[misc]  # that is what is refused


def test_two_classes_cannot_claim_one_wire_name() -> None:
    class Shipped(Event, source="shop.shipping"): ...

    with pytest.raises(DuplicateName, match=r"claim the wire name 'Shipped'.*name=.…"):

        class Sent(Event, source="shop.shipping", name="Shipped"): ...


@pytest.mark.parametrize(
    ("base", "keywords", "said"),
    [
        (Event, {"source": "shop", "verson": 2}, "Did you mean version?"),
        (Event, {"source": "shop", "sauce": 2}, "Did you mean source?"),
        (Event, {"source": "s", "colour": 1}, "Its keywords are name, native, source, version."),
        (Command, {"ownr": "shop"}, "Did you mean owner?"),
        (Command, {"owner": "shop", "tennant": "a"}, "Did you mean tenant?"),
        (Entity, {"pkey": "a#{b}"}, "Did you mean pk?"),
    ],
)
def test_a_keyword_that_no_base_of_a_class_takes_is_answered_with_the_nearest(
    base: type[BaseModel], keywords: dict[str, Any], said: str
) -> None:
    unknown = list(keywords)[-1]

    with pytest.raises(DefinitionError) as caught:
        types.new_class("Shipped", (base,), keywords)

    assert str(caught.value) == f"Shipped has an unknown keyword {unknown!r}. {said}"


def test_keywords_of_pydantic_and_of_other_bases_are_taken() -> None:
    class Labelled:
        label = ""

        def __init_subclass__(cls, *, label: str = "", **keywords: Any) -> None:
            super().__init_subclass__(**keywords)
            cls.label = label

    class Shipped(Event, Labelled, source="shop", label="a", str_max_length=3):
        parcel: str

    assert (Shipped.label, Shipped.model_config["str_max_length"]) == ("a", 3)


def test_a_class_that_is_defined_again_in_one_place_replaces_itself() -> None:
    def define() -> type[Event]:
        class Shipped(Event, source="shop.shipping"): ...

        return Shipped

    define()
    again = define()
    assert registry.find("Shipped") is again


def test_a_base_class_without_a_source_is_not_an_event_on_the_wire() -> None:
    class ShopEvent(Event):
        shop: str

    class Opened(ShopEvent, source="shop.doors"): ...

    assert contract_of(Opened).source == "shop.doors"
    with pytest.raises(DefinitionError, match=r'class ShopEvent\(Event, source="…"\)'):
        contract_of(ShopEvent)


def test_a_command_without_an_owner_is_told_how_to_get_one() -> None:
    class Ship(Command): ...

    with pytest.raises(DefinitionError, match=r'class Ship\(Command, owner="…"\)'):
        contract_of(Ship)


def test_a_subclass_of_an_event_does_not_take_over_its_name() -> None:
    class Shipped(Event, source="shop.shipping"): ...

    class Special(Shipped): ...

    with pytest.raises(DefinitionError, match="Special cannot be sent"):
        contract_of(Special)


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_below_one_is_refused(version: int) -> None:
    with pytest.raises(DefinitionError, match="whole numbers from 1"):

        class Shipped(Event, source="shop.shipping", version=version): ...


def test_a_wire_name_that_eventbridge_would_refuse_is_refused_first() -> None:
    with pytest.raises(DefinitionError, match="EventBridge takes 1 to 128"):

        class Shipped(Event, source="shop.shipping", name="x" * 129): ...


def test_only_native_events_may_come_from_aws() -> None:
    with pytest.raises(DefinitionError, match="native=True"):

        class Created(Event, source="aws.s3", name="Object Created"): ...

    class ObjectCreated(Event, source="aws.s3", name="Object Created", native=True): ...

    assert contract_of(ObjectCreated).native


def test_upcasters_run_step_by_step_up_to_the_current_version() -> None:
    class Shipped(Event, source="shop.shipping", version=3):
        parcel: str
        carrier: str
        weight: int

    @upcaster(Shipped, from_version=1)
    def name_carrier(payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "carrier": "post"}

    @upcaster(Shipped, from_version=2)
    def weigh(payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "weight": len(payload["carrier"])}

    contract = contract_of(Shipped)
    assert contract.oldest_readable() == 1
    assert contract.upcast({"parcel": "P"}, 1) == {"parcel": "P", "carrier": "post", "weight": 4}
    assert contract.upcast({"parcel": "P", "carrier": "dhl"}, 2)["weight"] == 3


def test_a_chain_of_upcasters_with_a_gap_reads_only_what_is_above_the_gap() -> None:
    class Shipped(Event, source="shop.shipping", version=3): ...

    upcaster(Shipped, from_version=1)(lambda payload: payload)
    assert contract_of(Shipped).oldest_readable() == 3


@pytest.mark.parametrize("step", [0, 2, 7])
def test_an_upcaster_must_start_below_the_current_version(step: int) -> None:
    class Shipped(Event, source="shop.shipping", version=2): ...

    with pytest.raises(DefinitionError, match=f"not from {step}"):
        upcaster(Shipped, from_version=step)


def test_two_upcasters_from_one_version_are_refused() -> None:
    class Shipped(Event, source="shop.shipping", version=2): ...

    upcaster(Shipped, from_version=1)(lambda payload: payload)
    with pytest.raises(DuplicateName, match="already has an upcaster from version 1"):
        upcaster(Shipped, from_version=1)(lambda payload: payload)


class Parcel:
    """A type that pydantic knows nothing about."""


def test_a_field_that_json_cannot_carry_is_refused_with_what_to_use_instead() -> None:
    class Shipped(Event, source="shop.shipping"):
        parcel: Parcel

    with pytest.raises(DefinitionError, match=r"Shipped cannot be written as JSON.*Use str, int"):
        ensure_buildable(Shipped)


def test_the_schema_of_an_event_is_that_of_its_payload() -> None:
    class Shipped(Event, source="shop.shipping"):
        parcel: str

    schema = json_schema(Shipped)
    assert schema["properties"] == {"parcel": {"title": "Parcel", "type": "string"}}
    assert schema["required"] == ["parcel"]


class Box(BaseModel):
    weight: int = Field(0, serialization_alias="grams")


def test_a_field_that_would_be_written_and_read_under_two_names_is_refused() -> None:
    class Shipped(Event, source="shop.shipping"):
        parcel: str = Field("", validation_alias="package")

    class Packed(Event, source="shop.shipping"):
        boxes: list[Box]

    class Sent(Event, source="shop.shipping"):
        parcel: str = Field("", alias="package")

    with pytest.raises(DefinitionError, match=r"written with 'parcel' and read with 'package'"):
        ensure_buildable(Shipped)
    with pytest.raises(DefinitionError, match=r"Box\.weight one alias"):
        ensure_buildable(Packed)
    ensure_buildable(Sent)
