"""The bodies that a message can have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from headrace.events import Message, contract_of
from headrace.ports import Attribute

NOON: Final = "2026-11-21T12:00:00Z"


class Body(NamedTuple):
    text: str
    attributes: Mapping[str, Attribute] = {}


Wrapping: TypeAlias = Callable[[Message, str, str], Body]
"""From an event, its id and something that no other body has, to a body."""


def bridged(message: Message, id: str, unique: str) -> Body:
    """As EventBridge delivers what headrace has published."""
    return Body(_bridged(message, _detail(message, id), unique))


def direct(message: Message, id: str, unique: str) -> Body:
    """As headrace sends a command, and anyone an event, straight to a queue."""
    envelope = {"detail-type": contract_of(message).name, "detail": _detail(message, id)}
    return Body(json.dumps({**envelope, "nonce": unique}))


def naked(message: Message, id: str, unique: str) -> Body:
    """Metadata and data without an envelope around them."""
    return Body(json.dumps({**_detail(message, id), "nonce": unique}))


def foreign(message: Message, id: str, unique: str) -> Body:
    """Through EventBridge from somebody who does not know headrace: its id is the event's."""
    return Body(_bridged(message, message.model_dump(mode="json"), id))


def notified(message: Message, id: str, unique: str) -> Body:
    """Through SNS, without raw delivery."""
    return Body(_notified(_bridged(message, _detail(message, id), unique), unique))


def notified_payload(message: Message, id: str, unique: str) -> Body:
    """Through SNS from somebody who does not know headrace: SNS's id is the event's."""
    kind = {"detail-type": {"Type": "String", "Value": contract_of(message).name}}
    return Body(_notified(message.model_dump_json(), id, kind))


def payload(message: Message, id: str, unique: str) -> Body:
    """The bare payload, and an attribute that names its type: the id is the SQS message's."""
    kind = Attribute(contract_of(message).name)
    return Body(message.model_dump_json(), {"detail-type": kind})


# --- of other versions, and wrong ones ---------------------------------------------------------


def of_version(version: int) -> Wrapping:
    """As `bridged`, in another version; below the third, an account is called a konto."""

    def wrapped(message: Message, id: str, unique: str) -> Body:
        detail = _detail(message, id)
        detail["metadata"]["version"] = version
        if version < 3:
            detail["data"]["konto"] = detail["data"].pop("account")
        return Body(_bridged(message, detail, unique))

    return wrapped


def of_type(name: str) -> Wrapping:
    """As `bridged`, under another name."""

    def wrapped(message: Message, id: str, unique: str) -> Body:
        wire = json.loads(_bridged(message, _detail(message, id), unique))
        return Body(json.dumps({**wire, "detail-type": name}))

    return wrapped


def misshapen(message: Message, id: str, unique: str) -> Body:
    """As `bridged`, but a field has the wrong type."""
    detail = _detail(message, id)
    detail["data"]["do"] = "rest"
    return Body(_bridged(message, detail, unique))


def from_elsewhere(message: Message, id: str, unique: str) -> Body:
    """As `bridged`, from a source that is not the event's."""
    wire = json.loads(_bridged(message, _detail(message, id), unique))
    return Body(json.dumps({**wire, "source": "parity.elsewhere"}))


def _detail(message: Message, id: str) -> dict[str, Any]:
    contract = contract_of(message)
    metadata = {
        "id": id,
        "type": contract.name,
        "version": contract.version,
        "time": NOON,
        "correlation_id": f"c:{id}",
    }
    return {"metadata": metadata, "data": message.model_dump(mode="json")}


def _bridged(message: Message, detail: Any, id: str) -> str:
    contract = contract_of(message)
    wire = {
        "version": "0",
        "id": id,
        "detail-type": contract.name,
        "source": contract.source,
        "account": "000000000000",
        "time": NOON,
        "region": "us-east-1",
        "resources": [],
        "detail": detail,
    }
    return json.dumps(wire)


def _notified(message: str, id: str, attributes: Mapping[str, Any] | None = None) -> str:
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": id,
            "TopicArn": "arn:aws:sns:us-east-1:000000000000:till",
            "Message": message,
            "Timestamp": NOON,
            "MessageAttributes": attributes or {},
        }
    )
