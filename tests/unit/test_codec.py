"""What becomes of a body: a typed event, or a sentence that says why not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from headrace.codec import Codec
from headrace.envelope import Metadata, queue_body, root_metadata, seal
from headrace.errors import (
    DecodeError,
    NotAnEnvelope,
    NotJson,
    SchemaMismatch,
    UnknownType,
    UnsupportedVersion,
)
from headrace.events import Command, Event, upcaster
from headrace.ports import Attribute, Delivery

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TRACEPARENT = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def shipped() -> Any:
    class Shipped(Event, source="shop.shipping", version=2):
        parcel: str
        weight: Decimal = Decimal(1)

    return Shipped


def ship() -> Any:
    class Ship(Command, owner="shipping"):
        parcel: str

    return Ship


def object_created() -> Any:
    class ObjectCreated(Event, source="aws.s3", name="Object Created", native=True):
        bucket: dict[str, Any]
        object: dict[str, Any]

    return ObjectCreated


def delivery(body: Any, **fields: Any) -> Delivery:
    text = body if isinstance(body, str) else json.dumps(body)
    return Delivery("m-1", "r-1", text, "shipping", **fields)


def enveloped(**changes: Any) -> dict[str, Any]:
    """A body as EventBridge makes it; `metadata` and `data` go inside the detail."""
    metadata = {
        "id": "e-1",
        "type": "Shipped",
        "version": 2,
        "time": "2026-11-21T12:00:00Z",
        "correlation_id": "c-1",
    }
    metadata.update(changes.pop("metadata", {}))
    data = changes.pop("data", {"parcel": "P-1", "weight": "2.50"})
    body = {
        "version": "0",
        "id": "bridge-1",
        "detail-type": "Shipped",
        "source": "shop.shipping",
        "account": "000000000000",
        "time": "2026-11-21T12:00:01Z",
        "region": "eu-central-1",
        "resources": [],
        "detail": {"metadata": metadata, "data": data},
    }
    return {**body, **changes}


def test_what_is_sealed_is_decoded_to_the_same_message_and_metadata() -> None:
    event, command = shipped(), ship()
    codec = Codec([event, command])
    for message in (event(parcel="P ï", weight=Decimal("2.50")), command(parcel="\ufffe\uffff")):
        metadata = root_metadata(message, id="e-1", now=NOON, traceparent=TRACEPARENT)
        envelope = codec.decode(delivery(queue_body(seal(message, metadata))))
        assert envelope.message == message
        assert envelope.metadata == metadata


def test_the_body_of_a_sealed_message_has_only_characters_that_xml_allows() -> None:
    message = ship()(parcel="\x00\x1f\ufffe\uffff😀")
    body = queue_body(seal(message, root_metadata(message, id="e-1", now=NOON)))
    assert not set(body) & {"\x00", "\x1f", "\ufffe", "\uffff"}


def test_the_envelope_of_eventbridge_is_unwrapped() -> None:
    envelope = Codec([shipped()]).decode(delivery(enveloped()))
    assert envelope.message.model_dump() == {"parcel": "P-1", "weight": Decimal("2.50")}
    assert envelope.metadata == Metadata(
        id="e-1", type="Shipped", version=2, time=NOON, correlation_id="c-1"
    )


def test_a_field_that_is_not_known_yet_is_ignored() -> None:
    data = {"parcel": "P-1", "colour": "brown"}
    envelope = Codec([shipped()]).decode(delivery(enveloped(data=data)))
    assert envelope.message.model_dump() == {"parcel": "P-1", "weight": Decimal(1)}


def test_an_older_version_is_upcast_and_the_metadata_say_the_current_one() -> None:
    event = shipped()

    @upcaster(event, from_version=1)
    def rename(payload: dict[str, Any]) -> dict[str, Any]:
        return {"parcel": payload["package"]}

    body = enveloped(metadata={"version": 1}, data={"package": "P-9"})
    envelope = Codec([event]).decode(delivery(body))
    assert envelope.message == event(parcel="P-9")
    assert envelope.metadata.version == 2


def test_an_older_version_is_upcast_even_if_its_payload_would_pass_as_the_current_one() -> None:
    event = shipped()
    upcaster(event, from_version=1)(lambda payload: {**payload, "weight": "7"})
    envelope = Codec([event]).decode(delivery(enveloped(metadata={"version": 1})))
    assert envelope.message == event(parcel="P-1", weight=Decimal(7))


def test_a_native_event_is_known_by_the_id_and_time_of_eventbridge() -> None:
    body = enveloped(
        **{"detail-type": "Object Created", "source": "aws.s3"},
        detail={"bucket": {"name": "b"}, "object": {"key": "k"}},
    )
    envelope = Codec([object_created(), shipped()]).decode(delivery(body, trace_header=XRAY))
    assert envelope.message.model_dump()["object"] == {"key": "k"}
    assert envelope.metadata.id == envelope.metadata.correlation_id == "bridge-1"
    assert envelope.metadata.time == datetime(2026, 11, 21, 12, 0, 1, tzinfo=UTC)
    assert envelope.metadata.traceparent == TRACEPARENT


def test_an_event_from_a_producer_without_metadata_is_known_by_the_id_of_eventbridge() -> None:
    envelope = Codec([shipped()]).decode(delivery(enveloped(detail={"parcel": "P-3"})))
    assert envelope.message.model_dump()["parcel"] == "P-3"
    assert envelope.metadata.id == "bridge-1"


def test_metadata_without_a_trace_take_that_of_the_message() -> None:
    envelope = Codec([shipped()]).decode(delivery(enveloped(), trace_header=XRAY))
    assert envelope.metadata.traceparent == TRACEPARENT


def test_a_trace_in_the_metadata_wins_over_that_of_the_message() -> None:
    own = TRACEPARENT.replace("5759", "aaaa")
    body = enveloped(metadata={"traceparent": own})
    envelope = Codec([shipped()]).decode(delivery(body, trace_header=XRAY))
    assert envelope.metadata.traceparent == own


def test_a_notification_of_sns_is_unwrapped() -> None:
    notification = {"Type": "Notification", "Message": json.dumps(enveloped())}
    envelope = Codec([shipped()]).decode(delivery(notification))
    assert envelope.metadata.id == "e-1"


@pytest.mark.parametrize("known_by", ["sns-1", None])
def test_a_notification_is_known_by_one_id_before_and_after_it_was_a_dead_letter(
    known_by: str | None,
) -> None:
    notification = {
        "Type": "Notification",
        "Message": '{"parcel": "P-6"}',
        "MessageAttributes": {"detail-type": {"Type": "String", "Value": "Shipped"}},
        **({"MessageId": known_by} if known_by else {}),
    }
    note = {"headrace": Attribute(json.dumps({"message_id": "m-1"}), "String.json")}
    codec = Codec([shipped()])
    first = codec.decode(delivery(notification))
    again = codec.decode(replace(delivery(notification, attributes=note), message_id="m-2"))
    assert first.metadata.id == again.metadata.id == (known_by or "m-1")


def test_metadata_and_data_alone_are_enough() -> None:
    envelope = Codec([shipped()]).decode(delivery(enveloped()["detail"]))
    assert envelope.metadata.id == "e-1"


def test_a_bare_payload_is_typed_by_its_message_attribute_and_known_by_its_message_id() -> None:
    attributes = {"detail-type": Attribute("Shipped")}
    envelope = Codec([shipped()]).decode(delivery({"parcel": "P-4"}, attributes=attributes))
    assert envelope.message.model_dump()["parcel"] == "P-4"
    assert envelope.metadata.id == "m-1"


def test_a_bare_payload_in_a_notification_is_typed_by_the_attribute_of_the_notification() -> None:
    notification = {
        "Type": "Notification",
        "Message": '{"parcel": "P-5"}',
        "MessageAttributes": {"detail-type": {"Type": "String", "Value": "Shipped"}},
    }
    envelope = Codec([shipped()]).decode(delivery(notification))
    assert envelope.message.model_dump()["parcel"] == "P-5"


BAD: dict[str, tuple[Any, type[DecodeError], str]] = {
    "empty": ("", NotJson, "body is empty"),
    "white space": (" \n", NotJson, "body is empty"),
    "no json": ("hello", NotJson, "body is not JSON"),
    "cut off": (json.dumps(enveloped())[:-9], NotJson, "body is not JSON"),
    "lone surrogate": ('{"detail-type": "\\ud800"}', NotJson, "body is not JSON"),
    "bad escape": ('{"detail-type": "\\uZZZZ"}', NotJson, "body is not JSON"),
    "not a number": ('{"detail-type": NaN}', NotJson, "body is not JSON"),
    "too deep": ("[" * 100_000, NotJson, "body is not JSON"),
    "array": ([1], NotAnEnvelope, "JSON array, not an object"),
    "string": ('"hello"', NotAnEnvelope, "JSON string, not an object"),
    "null": ("null", NotAnEnvelope, "JSON null, not an object"),
    "object": ({"parcel": "P"}, NotAnEnvelope, "does not say what it is"),
    "type alone": ({"detail-type": "Shipped"}, NotAnEnvelope, "'detail-type' and without 'detail'"),
    "detail alone": ({"detail": {}}, NotAnEnvelope, "with 'detail' and without 'detail-type'"),
    "data alone": ({"data": {"parcel": "P"}}, NotAnEnvelope, "neither 'detail-type' nor 'detail'"),
    "type not text": (enveloped(**{"detail-type": 7}), NotAnEnvelope, "is 7, not a name"),
    "no type": ({"metadata": {}, "data": {}}, NotAnEnvelope, "is None, not a name"),
    "unknown": (enveloped(**{"detail-type": "Lost"}), UnknownType, "'Lost' is no event"),
    "other source": (enveloped(source="shop.x"), UnknownType, "came from the source 'shop.x'"),
    "detail not an object": (enveloped(detail=[]), SchemaMismatch, "detail of Shipped is a JSON"),
    "data missing": (
        enveloped(detail={"metadata": enveloped()["detail"]["metadata"]}),
        SchemaMismatch,
        "data of Shipped is a JSON null",
    ),
    "wrong shape": (enveloped(data={"parcel": 5}), SchemaMismatch, "parcel: Input should be"),
    "wrong metadata": (enveloped(metadata={"time": "x"}), SchemaMismatch, "metadata of Shipped"),
    "two names": (enveloped(metadata={"type": "Sent"}), SchemaMismatch, "metadata says 'Sent'"),
    "newer": (enveloped(metadata={"version": 3}), UnsupportedVersion, "reads up to 2"),
    "older": (enveloped(metadata={"version": 1}), UnsupportedVersion, "from_version=1"),
}


@pytest.mark.parametrize(("body", "kind", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_bad_body_is_refused_with_a_reason(
    body: Any, kind: type[DecodeError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        Codec([shipped(), ship(), object_created()]).decode(delivery(body))


def test_an_event_that_is_handled_elsewhere_names_the_queue_it_came_to() -> None:
    shipped()
    codec = Codec([ship()])
    with pytest.raises(UnknownType, match="Shipped arrived on the queue 'shipping'"):
        codec.decode(delivery(enveloped()))


def test_a_reason_never_repeats_the_payload() -> None:
    with pytest.raises(SchemaMismatch) as refusal:
        Codec([shipped()]).decode(delivery(enveloped(data={"parcel": {"card": "4111"}})))
    assert "4111" not in str(refusal.value)


def test_an_upcaster_that_fails_makes_a_reason_not_a_crash() -> None:
    event = shipped()

    @upcaster(event, from_version=1)
    def rename(payload: dict[str, Any]) -> dict[str, Any]:
        return {"parcel": payload["package"]}

    with pytest.raises(SchemaMismatch, match="could not be upcast: KeyError"):
        Codec([event]).decode(delivery(enveloped(metadata={"version": 1}, data={})))
