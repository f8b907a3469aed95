"""Bodies of messages, as EventBridge, SNS and other senders write them."""

from __future__ import annotations

import json
from typing import Any

from headrace.events import Message, contract_of

NOON = "2026-11-21T12:00:00Z"
BRIDGE_ID = "6f1c8f0e-5a3d-4a52-9a8e-1c5b0a9e7d11"


def metadata(name: str, *, id: str, **changes: Any) -> dict[str, Any]:
    given = {"id": id, "type": name, "version": 1, "time": NOON, "correlation_id": f"c-{id}"}
    return {**given, **changes}


def bridged(name: str, detail: Any, *, source: str = "bank.teller", id: str = BRIDGE_ID) -> str:
    """The envelope that EventBridge puts around a detail."""
    return json.dumps(
        {
            "version": "0",
            "id": id,
            "detail-type": name,
            "source": source,
            "account": "000000000000",
            "time": NOON,
            "region": "us-east-1",
            "resources": [],
            "detail": detail,
        }
    )


def event(message: Message, *, id: str, bridge_id: str = BRIDGE_ID, **changes: Any) -> str:
    """An event or command of headrace with its metadata; `changes` are made to those."""
    contract = contract_of(message)
    meta = metadata(contract.name, id=id, **{"version": contract.version, **changes})
    detail = {"metadata": meta, "data": message.model_dump(mode="json")}
    return bridged(contract.name, detail, source=contract.source or "bank.teller", id=bridge_id)


def notified(message: str, **attributes: str) -> str:
    """What SNS puts around a message, unless raw delivery is on."""
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": BRIDGE_ID,
            "TopicArn": "arn:aws:sns:us-east-1:000000000000:teller",
            "Message": message,
            "Timestamp": NOON,
            "MessageAttributes": {
                name: {"Type": "String", "Value": value} for name, value in attributes.items()
            },
        }
    )
