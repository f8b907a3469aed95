"""Who ended: this task, or something that it waited for?"""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether this task was asked to end. If not, a `CancelledError` in it comes from a call that
    it waited for, which somebody else cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
