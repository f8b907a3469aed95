"""Run the sample shop on an emulator of AWS, and check what comes out."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from headrace.hosts.local import EMULATORS
from services.demo.environment import forget_aws, number_of_orders, wait_for_answers, write_into
from services.demo.sample import ORDERS

ANSWER_SECONDS = 6
"""Several times what an answer takes, and short enough to wait for a bank that gives none."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    emulator = "none" if options.provisioned else options.emulator
    _set_environment(emulator, folder, provisioned=options.provisioned)
    # Only now, as what it imports reads the environment.
    from services.demo.program import play

    return play(
        options.orders,
        options.data,
        emulator=emulator,
        provisioned=options.provisioned,
        limit=options.timeout or 60 + 0.3 * options.orders,
        folder=folder,
    )


def _set_environment(emulator: str, folder: Path, *, provisioned: bool) -> None:
    """On an emulator that is there already, the run gets names of its own, unless everything is
    there too."""
    write_into(folder)
    wait_for_answers(ANSWER_SECONDS)
    if emulator == "none" and not provisioned:
        os.environ.setdefault("HEADRACE_NAMESPACE", f"demo-{uuid4().hex[:8]}")
    elif emulator != "none":
        forget_aws()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.demo", description=__doc__)
    parser.add_argument("--orders", type=number_of_orders, default=200, metavar="N")
    parser.add_argument(
        "--emulator",
        choices=EMULATORS,
        default="ministack",
        help="none: whatever AWS_ENDPOINT_URL names",
    )
    parser.add_argument(
        "--provisioned",
        action="store_true",
        help="make nothing: use what stands at AWS_ENDPOINT_URL in HEADRACE_NAMESPACE",
    )
    parser.add_argument(
        "--data", type=Path, default=ORDERS, metavar="FILE", help="orders, one JSON object a line"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="from the first order to the last mail (default: 60, and 0.3 for each order)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
