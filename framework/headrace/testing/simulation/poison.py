"""Messages that no handler can make sense of."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson

from headrace.events import contract_of
from headrace.service import Service
from headrace.testing.simulation.loop import START


def poisons(service: Service, queue: str, random: Random) -> list[str]:
    """Messages that no handler can make sense of."""
    serial = random.getrandbits(32)
    types = [cls for handler in service.handlers_of(queue) for cls in handler.takes]
    contract = contract_of(random.choice(types))
    known = contract.name
    metadata = {"id": f"poison-{serial}", "type": known, "version": 1}
    metadata |= {"time": START.isoformat(), "correlation_id": f"poison-{serial}"}
    bodies: list[Any] = [
        {"detail-type": f"NobodyKnows{serial}", "detail": {"metadata": metadata, "data": {}}},
        {"nobody": "knows", "serial": serial},
        [serial],
        {"detail-type": known, "detail": "no object"},
        {"Type": "Notification", "MessageId": f"{serial}", "Message": "no envelope"},
    ]
    if not contract.native:
        # Not as its type is written; and a version that nobody has written yet.
        bodies += [
            {"detail-type": known, "detail": {"metadata": metadata, "data": [serial]}},
            {"detail-type": known, "detail": {"metadata": {**metadata, "version": 99}, "data": {}}},
        ]
    return [f"{{broken {serial}", *(orjson.dumps(body).decode() for body in bodies)]
