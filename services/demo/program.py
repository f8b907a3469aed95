"""The demo from its first order to its last line."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from rich.console import Console

from headrace.errors import HeadraceError
from headrace.hosts.local import local_aws
from services.demo.report import show
from services.demo.run import SERVICES, Ended, run, standing_aws
from services.demo.sample import load
from services.demo.script import Script
from services.demo.watch import Watch


def play(
    orders: int, data: Path, *, emulator: str, provisioned: bool, limit: float, folder: Path
) -> int:
    """Run it and tell how it went; the exit status."""
    # Retries and dead letters are part of the show, so their log goes beside the mail.
    logging.basicConfig(filename=folder / "demo.log", level=logging.INFO)
    console = Console()
    watch = Watch()
    try:
        script = Script(load(orders, data))
        aws = standing_aws() if provisioned else local_aws(SERVICES, emulator=emulator)
        ended = asyncio.run(
            run(script, watch, aws=aws, limit=limit, folder=folder, console=console)
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
