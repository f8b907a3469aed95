"""Run the sample shop on an emulator of AWS, and check what comes out."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from rich.console import Console

from headrace.errors import HeadraceError
from headrace.hosts.local import EMULATORS
from services.demo.environment import forget_aws, number_of_orders, write_mail_into
from services.demo.report import show
from services.demo.run import Ended, run
from services.demo.sample import ORDERS, load
from services.demo.script import Script
from services.demo.watch import Watch


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    mail = folder / "mail"
    _set_environment(options.emulator, mail)
    # Retries and dead letters are part of the show, so their log goes beside the mail.
    logging.basicConfig(filename=folder / "demo.log", level=logging.INFO)
    console = Console()
    watch = Watch()
    try:
        script = Script(load(options.orders, options.data))
        ended = asyncio.run(
            run(
                script,
                watch,
                emulator=options.emulator,
                limit=options.timeout or 60 + 0.3 * options.orders,
                mail=mail,
                console=console,
            )
        )
    except HeadraceError as error:
        console.print(str(error), style="red", soft_wrap=True, markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    show(ended.verdict, watch, script, ended.seconds, console)
    console.print(f"mail and log are in {folder}", soft_wrap=True, highlight=False)
    return _conclude(ended, console)


def _conclude(ended: Ended, console: Console) -> int:
    """The last lines, and the exit status."""
    failed = ended.verdict.failed
    if ended.unfinished:
        console.print(ended.unfinished, style="red", soft_wrap=True, markup=False)
    for check in failed:
        console.print(f"wrong: {check.name}: {check.wrong}", style="red", markup=False)
    console.print(ended.verdict.line(), soft_wrap=True, highlight=False)
    return 1 if failed or ended.unfinished else 0


def _set_environment(emulator: str, mail: Path) -> None:
    """On an emulator that is there already, the run gets names of its own."""
    write_mail_into(mail)
    if emulator == "none":
        os.environ.setdefault("HEADRACE_NAMESPACE", f"demo-{uuid4().hex[:8]}")
    else:
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
