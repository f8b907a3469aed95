"""Messages that are made of their types, or given, to try a saga with."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from headrace import Command, Event
from headrace.errors import DefinitionError
from headrace.events import Message
from headrace.saga import Saga, step
from headrace.saga.branches import with_branches
from headrace.saga.definition import definition_of
from headrace.saga.examples import Examples, example, examples_of, variants
from tests.unit.saga.carnival import MINUTE, Carnival, CarnivalCalled, DrummersHired, PermitGiven


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Feather(BaseModel):
    length: Annotated[int, Field(ge=5, le=9)]
    colour: Colour


class Branch(BaseModel):
    name: str
    twigs: list[Branch] = Field(default_factory=list)
    parent: Branch | None


class CostumeSewn(Event, source="examples.tailor"):
    text: str
    short: Annotated[str, Field(max_length=2)]
    long: Annotated[str, Field(min_length=12)]
    number: int
    odd: Annotated[int, Field(gt=10, multiple_of=7)]
    below: Annotated[float, Field(lt=-3)]
    money: Annotated[Decimal, Field(gt=0, max_digits=8, decimal_places=2)]
    yes: bool
    colour: Colour
    kind: Literal["wig", "mask"]
    fixed: Literal[3]
    feathers: Annotated[list[Feather], Field(min_length=2)]
    pair: tuple[int, str]
    several: Annotated[set[int], Field(min_length=2)]
    by_name: Annotated[dict[str, Feather], Field(min_length=1)]
    when: datetime
    exact: AwareDatetime
    day: date
    span: timedelta
    id: UUID
    raw: bytes
    either: Feather | str
    maybe: Feather | None
    anything: Any
    tree: Branch
    left: str = "out"
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    currency: Annotated[str, Field(pattern="^EUR|USD$", examples=["EUR"])]


class RiddleAsked(Event, source="examples.sphinx"):
    answer: Annotated[str, Field(pattern="^xyzzy[0-9]{7}$")]


class PairMet(Event, source="examples.dance"):
    left: int
    right: int

    @model_validator(mode="before")
    @classmethod
    def refuse_equals(cls, fields: dict[str, int]) -> dict[str, int]:
        if fields["left"] == fields["right"]:
            raise ValueError("nobody dances alone")
        return fields


class DanceWanted(Event, source="examples.dance"):
    dance: UUID
    slow: bool = False


class PlayMusic(Command, owner="band"):
    id: UUID


class MusicPlayed(Event, source="examples.band"):
    id: UUID
    loud: bool


class OpenWindow(Command, owner="house"):
    dance: UUID


class Dance(
    Saga,
    starts_on=DanceWanted,
    key="dance",
    keys={MusicPlayed: "id"},
):
    dance: UUID
    slow: bool
    loud: bool = False

    @classmethod
    def begin(cls, event: DanceWanted) -> Dance:
        return cls(dance=event.dance, slow=event.slow)

    @step(done=MusicPlayed, timeout=MINUTE, nothing_to_undo=True)
    def music(self) -> PlayMusic | None:
        return None if self.slow else PlayMusic(id=self.dance)

    @music.on(MusicPlayed)
    def heard(self, event: MusicPlayed) -> None:
        self.loud = event.loud

    @step(nothing_to_undo=True)
    def window(self) -> OpenWindow | None:
        return OpenWindow(dance=self.dance) if self.loud else None


def test_a_message_is_made_of_the_types_of_its_fields() -> None:
    made = example(CostumeSewn)

    assert isinstance(made, CostumeSewn)
    assert made.text == "text"
    assert made.odd == 14
    assert made.colour is Colour.RED
    assert [feather.length for feather in made.feathers] == [5, 5]
    assert len(made.several) == 2
    assert made.tree.parent is not None
    assert made.left == "out"
    assert made.country == "AAA"


def test_a_pattern_that_nothing_known_fits_asks_for_an_example() -> None:
    with pytest.raises(DefinitionError, match=r"RiddleAsked .* of answer: .*examples=\[…\]"):
        example(RiddleAsked)


def test_a_message_that_its_own_validator_refuses_asks_for_an_example() -> None:
    with pytest.raises(DefinitionError, match=r"because of its fields together: .*dances alone"):
        example(PairMet)


def test_variants_differ_in_one_field_each() -> None:
    first, *others = variants(DanceWanted)

    assert isinstance(first, DanceWanted)
    assert not first.slow
    assert any(isinstance(other, DanceWanted) and other.slow for other in others)


def test_all_messages_have_the_key_of_the_first_in_the_field_that_holds_it() -> None:
    made = examples_of(definition_of(Dance))

    (start,) = made.starts
    (reply,) = made.replies[MusicPlayed]
    assert isinstance(start, DanceWanted)
    assert isinstance(reply, MusicPlayed)
    assert start.dance == reply.id


def test_messages_that_are_given_come_before_those_of_the_class_and_those_that_are_made() -> None:
    class Given(Carnival, starts_on=CarnivalCalled, key="town"):
        @classmethod
        def examples(cls) -> Iterable[Message]:
            yield CarnivalCalled(town="Basel", guests=1)
            yield PermitGiven(town="Basel")

    definition = definition_of(Given)
    own = examples_of(definition)
    given = examples_of(definition, starts=[CarnivalCalled(town="Chur", guests=2)])

    assert own.starts == (CarnivalCalled(town="Basel", guests=1),)
    assert given.starts == (CarnivalCalled(town="Chur", guests=2),)
    assert given.replies[PermitGiven] == (PermitGiven(town="Chur"),)
    assert given.replies[DrummersHired] == (DrummersHired(town="Chur"),)
    assert CarnivalCalled not in own.made
    assert PermitGiven not in own.made
    assert DrummersHired in own.made


def test_an_example_that_the_saga_does_not_take_is_refused() -> None:
    with pytest.raises(DefinitionError, match="Dance does not take PermitGiven"):
        examples_of(definition_of(Dance), replies=[PermitGiven(town="Basel")])


def test_messages_that_lead_another_way_are_added_and_no_others() -> None:
    definition = definition_of(Dance)
    found: Examples = with_branches(definition, examples_of(definition))

    slow = [start.slow for start in found.starts if isinstance(start, DanceWanted)]
    loud = [reply.loud for reply in found.replies[MusicPlayed] if isinstance(reply, MusicPlayed)]
    assert slow == [False, True]
    assert loud == [False, True]


def test_to_messages_that_are_given_no_others_are_added() -> None:
    definition = definition_of(Dance)
    given = DanceWanted(dance=UUID(int=1))

    found = with_branches(definition, examples_of(definition, starts=[given]))

    assert found.starts == (given,)
