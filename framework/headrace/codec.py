"""From the body of a message to a typed event, and why not, when it cannot be.

What headrace itself sends is decoded in one pass: pydantic parses the JSON and validates it
as a union tagged by `detail-type`, with no dict in between. Only what that pass does not
take (an older version, another wrapping, something broken) is looked at more closely.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NotRequired, Union, cast

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict

from headrace.dead_letter import original_id
from headrace.envelope import SAGA_SIGNALS, Envelope, Metadata
from headrace.errors import (
    NotAnEnvelope,
    NotJson,
    SchemaMismatch,
    UnknownSaga,
    UnknownType,
    UnsupportedVersion,
)
from headrace.events import Contract, Message, MessageType, Payload, contract_of, registry
from headrace.ports import Attribute, Delivery
from headrace.trace import traceparent_from_xray

TYPE_ATTRIBUTE = "detail-type"
"""The message attribute that names the type of a bare payload."""


class Codec:
    """Decodes deliveries into the events and commands that one queue takes."""

    def __init__(self, types: Iterable[MessageType]) -> None:
        self._types = {contract_of(cls).name: cls for cls in types}
        self._wire = _wire_adapter(self._types.values())

    def decode(self, delivery: Delivery) -> Envelope[Message]:
        """The typed message of a delivery, at its current version.

        Raises `NotJson`, `NotAnEnvelope`, `UnknownType`, `UnsupportedVersion` or
        `SchemaMismatch`, each with a sentence that serves as a dead letter's reason.
        """
        try:
            wire = self._wire.validate_json(delivery.body)
        except ValidationError:
            return self._decode_closely(_parse(delivery.body), delivery, delivery.attributes)
        detail = wire["detail"]
        if isinstance(detail, Message):
            return Envelope(_foreign_metadata(contract_of(detail), wire, delivery), detail)
        metadata = cast(Metadata, detail["metadata"])
        message = cast(Message, detail["data"])
        contract = contract_of(message)
        if metadata.version != contract.version or metadata.type != contract.name:
            return self._decode_closely(_parse(delivery.body), delivery, delivery.attributes)
        return Envelope(_traced(metadata, delivery), message)

    def _decode_closely(
        self, body: object, delivery: Delivery, attributes: Mapping[str, Attribute]
    ) -> Envelope[Message]:
        """Find out what the body is, from the outermost wrapping inwards."""
        if not isinstance(body, dict):
            raise NotAnEnvelope(
                f"The body is a JSON {_json_kind(body)}, not an object: send an event with "
                "`headrace publish`, or an object with 'detail-type' and 'detail'."
            )
        if body.get("Type") == "Notification" and isinstance(body.get("Message"), str):
            inner = _parse(body["Message"])
            # SNS's id is the same on a dead letter, and when that is redriven; the note on it names
            # another, that of SQS.
            id = body.get("MessageId") or original_id(delivery)
            known = replace(delivery, message_id=str(id), attributes={})
            return self._decode_closely(inner, known, _sns_attributes(body))
        if "detail-type" in body and "detail" in body:
            return self._decode_enveloped(body, delivery)
        if isinstance(body.get("metadata"), dict) and "data" in body:
            wire = {"detail-type": body["metadata"].get("type"), "detail": body}
            return self._decode_enveloped(wire, delivery)
        if TYPE_ATTRIBUTE in attributes:
            wire = {"detail-type": attributes[TYPE_ATTRIBUTE].value, "detail": body}
            return self._decode_enveloped(wire, delivery)
        raise NotAnEnvelope(_what_is_missing(body))

    def _decode_enveloped(self, wire: Mapping[str, Any], delivery: Delivery) -> Envelope[Message]:
        cls = self._find(wire["detail-type"], delivery.queue)
        contract = contract_of(cls)
        _refuse_other_source(wire.get("source"), contract)
        detail = wire["detail"]
        if not isinstance(detail, dict):
            raise SchemaMismatch(
                f"The detail of {contract.name} is a JSON {_json_kind(detail)}, not an object."
            )
        if contract.native or "metadata" not in detail:
            message = _validate(cls, detail)
            return Envelope(_foreign_metadata(contract, wire, delivery), message)
        metadata = _validate_metadata(detail["metadata"], contract)
        payload = _upcast(detail.get("data"), metadata.version, contract)
        current = metadata.model_copy(update={"version": contract.version})
        return Envelope(_traced(current, delivery), _validate(cls, payload))

    def _find(self, name: object, queue: str) -> MessageType:
        if not isinstance(name, str):
            raise NotAnEnvelope(
                f"'detail-type' is {name!r}, not a name: it must be one of {self._known()}."
            )
        cls = self._types.get(name)
        if cls is not None:
            return cls
        if name.startswith(SAGA_SIGNALS):
            raise UnknownSaga(
                f"{name} is for a saga that this service does not have: keep its class, under its "
                "name, until `headrace saga list` shows none of it any more."
            )
        if registry.find(name) is not None:
            raise UnknownType(
                f"{name} arrived on the queue {queue!r}, where nothing handles it: correct the "
                f"rule or the sender, or add a handler. The queue takes {self._known()}."
            )
        raise UnknownType(
            f"{name!r} is no event that this service knows. The queue {queue!r} takes "
            f"{self._known()}."
        )

    def _known(self) -> str:
        return ", ".join(sorted(self._types)) or "nothing"


def _what_is_missing(body: Mapping[str, Any]) -> str:
    """Of an object that is in no wrapping that can be told."""
    for has, lacks in _TOGETHER:
        if has in body:
            return f"The body is a JSON object with {has!r} and without {lacks!r}: it needs both."
    return (
        "The body is a JSON object that does not say what it is: it has neither 'detail-type' nor "
        f"'detail', and no message attribute {TYPE_ATTRIBUTE!r} names its type. Add one or the "
        "other, or send it with `headrace publish`."
    )


_TOGETHER: Final = (("detail-type", "detail"), ("detail", "detail-type"))


# --- the one-pass union ----------------------------------------------------------------


def _wire_adapter(types: Iterable[MessageType]) -> TypeAdapter[Any]:
    shapes = tuple(_wire_shape(cls) for cls in types)
    if not shapes:
        return TypeAdapter(None)
    if len(shapes) == 1:
        return TypeAdapter(shapes[0])
    union: Any = Union[shapes]  # noqa: UP007 - made from a tuple that only run time knows
    return TypeAdapter(Annotated[union, Field(discriminator="detail-type")])


def _wire_shape(cls: MessageType) -> Any:
    """The part of EventBridge's envelope that matters, for one type of event."""
    contract = contract_of(cls)
    fields: dict[str, Any] = {
        "detail-type": Literal[contract.name],
        "detail": cls if contract.native else _detail_shape(cls),
        "id": NotRequired[str],
        "time": NotRequired[AwareDatetime],
    }
    if contract.source is not None:
        fields["source"] = NotRequired[Literal[contract.source]]
    return TypedDict(f"Wire{cls.__name__}", fields)  # type: ignore[operator]  # fields are dynamic


def _detail_shape(cls: MessageType) -> Any:
    fields = {"metadata": Metadata, "data": cls}
    return TypedDict(f"Detail{cls.__name__}", fields)  # type: ignore[operator]  # as above


# --- the closer look -------------------------------------------------------------------


def _parse(text: str) -> object:
    if not text.strip():
        raise NotJson("The body is empty: there is no event in it.")
    try:
        return from_json(text, allow_inf_nan=False)
    except (ValueError, TypeError) as error:  # a TypeError for half of a surrogate pair
        raise NotJson(f"The body is not JSON: {error}.") from error


def _sns_attributes(notification: Mapping[str, Any]) -> dict[str, Attribute]:
    attributes = notification.get("MessageAttributes")
    if not isinstance(attributes, dict):
        return {}
    return {
        name: Attribute(str(attribute.get("Value", "")))
        for name, attribute in attributes.items()
        if isinstance(attribute, dict)
    }


def _refuse_other_source(source: object, contract: Contract) -> None:
    if source is not None and contract.source is not None and source != contract.source:
        raise UnknownType(
            f"{contract.name} came from the source {source!r}, but it is handled here as an "
            f"event of {contract.source!r}: correct the sender, or declare the other event "
            'as a class of its own with name="…".'
        )


def _validate_metadata(metadata: object, contract: Contract) -> Metadata:
    try:
        found = Metadata.model_validate_json(to_json(metadata))
    except ValueError as error:
        raise SchemaMismatch(
            f"The metadata of {contract.name} is not valid: {_summary(error)}."
        ) from error
    if found.type != contract.name:
        raise SchemaMismatch(
            f"The metadata says {found.type!r}, but the detail-type says {contract.name!r}: "
            "the sender must give both the same name."
        )
    return found


def _upcast(payload: object, version: int, contract: Contract) -> Payload:
    if not isinstance(payload, dict):
        raise SchemaMismatch(
            f"The data of {contract.name} is a JSON {_json_kind(payload)}, not an object."
        )
    if version > contract.version:
        raise UnsupportedVersion(
            f"{contract.name} arrived at version {version}, and this service reads up to "
            f"{contract.version}: deploy the consumer with the newer schema, then redrive."
        )
    if version < contract.oldest_readable():
        raise UnsupportedVersion(
            f"{contract.name} arrived at version {version}, and nothing upcasts it to "
            f"{contract.version}: write @upcaster({contract.name}, from_version={version}), "
            "then redrive."
        )
    try:
        return contract.upcast(payload, version)
    except Exception as error:
        raise SchemaMismatch(
            f"{contract.name} at version {version} could not be upcast: "
            f"{type(error).__name__}: {error}."
        ) from error


def _validate(cls: MessageType, payload: Payload) -> Message:
    try:
        # As JSON again: the rules for JSON are stricter than those for Python objects, and
        # an event must not be valid on one path and invalid on the other.
        return cls.model_validate_json(to_json(payload))
    except ValueError as error:
        raise SchemaMismatch(f"{contract_of(cls).name} is not valid: {_summary(error)}.") from error


def _foreign_metadata(contract: Contract, wire: Mapping[str, Any], delivery: Delivery) -> Metadata:
    """Metadata for an event whose producer gave none.

    EventBridge's id stays the same through redeliveries of one event; a message that was
    sent straight to the queue is known by its message id, and a redriven dead letter by the id
    of the message it is a copy of.
    """
    identifier = str(wire.get("id") or original_id(delivery))
    try:
        return Metadata(
            id=identifier,
            type=contract.name,
            version=contract.version,
            time=_time_of(wire.get("time"), delivery),
            correlation_id=identifier,
            traceparent=traceparent_from_xray(delivery.trace_header),
        )
    except ValidationError as error:
        raise SchemaMismatch(
            f"The envelope of {contract.name} is not valid: {_summary(error)}."
        ) from error


def _time_of(time: object, delivery: Delivery) -> datetime:
    if isinstance(time, datetime):
        return time
    if isinstance(time, str):
        try:
            parsed = datetime.fromisoformat(time)
        except ValueError as error:
            raise SchemaMismatch(f"The time {time!r} is not an ISO 8601 date and time.") from error
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return delivery.sent_at or datetime.fromtimestamp(0, UTC)


def _traced(metadata: Metadata, delivery: Delivery) -> Metadata:
    if metadata.traceparent is not None or delivery.trace_header is None:
        return metadata
    traceparent = traceparent_from_xray(delivery.trace_header)
    return metadata.model_copy(update={"traceparent": traceparent})


def _summary(error: Exception) -> str:
    """The first few findings, without the payload: a reason may be read by anyone."""
    if not isinstance(error, ValidationError):
        return str(error)
    findings = [
        f"{'.'.join(map(str, finding['loc'])) or 'the object'}: {finding['msg']}"
        for finding in error.errors(include_url=False, include_input=False)
    ]
    more = f" (and {len(findings) - 3} more)" if len(findings) > 3 else ""
    return "; ".join(findings[:3]) + more


def _json_kind(value: object) -> str:
    kinds: dict[type, str] = {
        str: "string",
        bool: "boolean",
        int: "number",
        float: "number",
        list: "array",
        dict: "object",
    }
    return kinds.get(type(value), "null")
