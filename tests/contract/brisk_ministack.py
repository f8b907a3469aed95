"""Start ministack with schedules that it looks at five times a second; of itself it does so every
ten seconds.

Run as a script, with the variables that ministack reads.
"""

from __future__ import annotations

import importlib
import runpy
from typing import Any


def main() -> None:
    scheduler: Any = importlib.import_module("ministack.services.scheduler")
    scheduler._SCHEDULE_TICK_INTERVAL = 0.2
    runpy.run_module("ministack", run_name="__main__")


if __name__ == "__main__":
    main()
