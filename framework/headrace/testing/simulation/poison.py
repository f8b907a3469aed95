"""Messages that no handler can make sense of."""

from __future__ import annotations

from random import Random

import orjson

from headrace.events import contract_of
from headrace.service import Service
from headrace.testing.simulation.loop import START


def poisons(service: Service, queue: str, random: Random) -> list[str]:
    """Messages that no handler can make sense of."""
    serial = random.getrandbits(32)
    types = [cls for handler in service.handlers_of(queue) for cls in handler.takes]
    known = contract_of(random.choice(types)).name
    metadata = {"id": f"poison-{serial}", "type": known, "version": 1, "time": START.isoformat()}
    bodies = [
        {"detail-type": f"NobodyKnows{serial}", "detail": {"metadata": metadata, "data": {}}},
        {"nobody": "knows", "serial": serial},
        [serial],
    ]
    return [f"{{broken {serial}", *(orjson.dumps(body).decode() for body in bodies)]
