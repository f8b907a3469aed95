"""Fields that a payload has and its class has not are found, wherever they are."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
)

from headrace.fields import unknown_fields


class Street(BaseModel):
    name: str
    number: int = 1


class Box(BaseModel):
    box: int


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")

    known: int = 0


class Streets(RootModel[list[Street]]):
    """A list of its own."""


class Parcel(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    street: Street | None = None
    streets: list[Annotated[Street, "on the way"]] = []
    by_day: dict[str, Street] = {}
    place: Street | Box | str = ""
    named: Streets | None = None
    anything: Anything | None = None
    free: dict[str, Any] = {}
    short: str = Field("", alias="s")
    either: str = Field("", validation_alias=AliasChoices("e1", AliasPath("e2", "inner")))

    @computed_field
    def label(self) -> str:
        return self.short


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"street": None},
        {"street": {"name": "a", "number": 2}, "streets": [{"name": "b"}]},
        {"by_day": {"monday": {"name": "a"}}, "named": [{"name": "a"}]},
        {"place": {"box": 1}},
        {"place": "here"},
        {"anything": {"whatever": {"it": "is"}}, "free": {"whatever": 1}},
        {"s": "short"},
        {"short": "short", "label": "computed"},
        {"e1": "a"},
        {"e2": {"inner": "a"}},
    ],
)
def test_what_a_class_reads_is_not_unknown(payload: dict[str, Any]) -> None:
    assert unknown_fields(Parcel, payload) == []


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"stret": None}, "stret"),
        ({"street": {"name": "a", "nummer": 2}}, "street.nummer"),
        ({"streets": [{"name": "a"}, {"name": "a", "nummer": 2}]}, "streets.1.nummer"),
        ({"by_day": {"monday": {"name": "a", "nummer": 2}}}, "by_day.monday.nummer"),
        ({"place": {"box": 1, "bux": 2}}, "place.bux"),
        ({"named": [{"name": "a", "nummer": 2}]}, "named.0.nummer"),
        ({"shorter": ""}, "shorter"),
    ],
)
def test_what_no_class_reads_is_found_where_it_is(payload: dict[str, Any], path: str) -> None:
    assert [".".join(unknown.path) for unknown in unknown_fields(Parcel, payload)] == [path]


def test_an_unknown_field_says_where_it_is_and_what_was_meant() -> None:
    (near,) = unknown_fields(Parcel, {"street": {"name": "a", "numbr": 2}})
    (far,) = unknown_fields(Box, {"box": 1, "colour": "red"})

    assert str(near) == "Street has no field 'numbr' in street. Did you mean number?"
    assert str(far) == "Box has no field 'colour'. The only one is box."
