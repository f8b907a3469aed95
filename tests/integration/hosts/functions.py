"""Small Lambda functions for the tests of the Runtime API, without headrace in them."""

from __future__ import annotations

import os
import threading
from typing import Any


def echo(event: Any, context: Any) -> Any:
    print(f"asked for {event!r}")
    return {
        "event": event,
        "process": os.getpid(),
        "request_id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "milliseconds": context.get_remaining_time_in_millis(),
    }


def fail(event: Any, context: Any) -> Any:
    raise LookupError(f"there is no {event!r}")


def leave(event: Any, context: Any) -> Any:
    if event == "leave":
        os._exit(3)
    if event == "hang":
        threading.Event().wait()
    return echo(event, context)


def unprintable(event: Any, context: Any) -> Any:
    return {"set of": {1, 2}}
