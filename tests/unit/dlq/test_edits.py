"""Mending what a letter says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import Event, Service
from headrace.dlq.edits import Edits, InvalidEdit, Setting, edited
from headrace.dlq.letters import read_letter
from headrace.errors import ConfigurationError
from headrace.ports import Delivery
from headrace.testing import delivery_of


class Stamp(BaseModel):
    value: int


class CardSent(Event, source="office.cards"):
    to: str
    stamps: tuple[Stamp, ...] = ()


class BagSealed(Event, source="aws.bags", name="Bag Sealed", native=True):
    weight: int


cards = Service("cards", table=None)


@cards.on(CardSent, idempotent=True)
async def send(event: CardSent) -> None: ...


@cards.on(BagSealed, idempotent=True)
async def weigh(event: BagSealed) -> None: ...


CARD = delivery_of(CardSent(to="Ada", stamps=(Stamp(value=1), Stamp(value=2))), "cards").body


def data(body: str, *settings: str) -> Any:
    """What the event says after these settings."""
    wire = json.loads(after(body, *settings))
    detail = wire.get("detail", wire)
    return detail.get("data", detail)


def after(body: str, *settings: str) -> str:
    letter = read_letter(cards, "cards", Delivery("m-1", "r-1", body, "cards-dlq"))
    return edited(cards, letter, Edits(tuple(map(Setting.parse, settings)))).delivery.body


def test_a_field_a_place_in_a_list_and_a_field_within_it_can_be_set() -> None:
    said = data(CARD, 'to="Eve"', 'stamps.1={"value": 7}', "stamps.0.value=5")
    assert said == {"to": "Eve", "stamps": [{"value": 5}, {"value": 7}]}


def test_what_is_around_the_event_stays_as_it_is() -> None:
    before, wire = json.loads(CARD), json.loads(after(CARD, 'to="Eve"'))
    assert wire["detail"]["metadata"] == before["detail"]["metadata"]
    assert wire["detail-type"] == "CardSent"


def test_a_native_event_is_its_detail() -> None:
    body = (
        '{"id": "e-1", "detail-type": "Bag Sealed", "source": "aws.bags", "detail": {"weight": 1}}'
    )
    assert data(body, "weight=2") == {"weight": 2}


def test_an_event_without_an_envelope_of_eventbridge_can_be_set() -> None:
    detail = json.dumps(json.loads(CARD)["detail"])
    assert data(detail, 'to="Eve"')["to"] == "Eve"


def test_a_field_that_was_missing_can_be_added() -> None:
    body = CARD.replace('"to":"Ada",', "")
    assert '"to"' not in body
    assert data(body, 'to="Eve"')["to"] == "Eve"


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("stamps.2.value=1", "not one of the 2 places of its list"),
        ("sender.name=1", "nothing at 'sender' to go into"),
        ("to.first=1", "nothing at 'first' to go into"),
        ("to=5", "to: Input should be a valid string"),
        ('stamps.0.value="x"', "stamps.0.value: Input should be a valid integer"),
    ],
)
def test_an_edit_that_leads_nowhere_or_is_not_valid_is_refused(setting: str, why: str) -> None:
    with pytest.raises(InvalidEdit, match=why.replace(".", r"\.")):
        after(CARD, setting)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{", "The body is not JSON"),
        ("[]", "no JSON object"),
        ('{"Type": "Notification", "Message": "{}"}', "wrapped by SNS"),
        ('{"detail-type": "CardSent", "detail": 5}', "has no fields"),
    ],
)
def test_what_has_no_fields_needs_a_whole_body(body: str, why: str) -> None:
    with pytest.raises(InvalidEdit, match=why):
        after(body, "to=1")


@pytest.mark.parametrize("text", ["to", "=1", "a..b=1", "to=Eve", "to="])
def test_what_is_no_setting_is_answered_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write PATH=JSON"):
        Setting.parse(text)


def test_a_body_that_could_not_be_read_may_be_replaced_by_any_event() -> None:
    letter = read_letter(cards, "cards", Delivery("m-1", "r-1", "{", "cards-dlq"))
    found = edited(cards, letter, Edits(body=CARD))
    assert (found.event_id, found.unreadable) == ("event-1", None)
