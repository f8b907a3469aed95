"""Run the sample shop on emulators of AWS while its worker processes are killed with SIGKILL, and
check that nothing is lost and nothing took effect twice."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom

from rich.console import Console

from headrace.errors import HeadraceError
from services.demo.environment import forget_aws, number_of_orders, wait_for_answers, write_into
from services.demo.sample import load
from services.soak.cloud import has_dynoxide
from services.soak.feed import Feed
from services.soak.report import show
from services.soak.run import Ended, Run, Stopped
from services.soak.workers import Killing

INTERRUPTED = 130
ANSWER_SECONDS = 20
"""Longer than the lease of a worker that was killed at the bank, and what it had comes again."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="headrace-soak-"))
    write_into(folder)
    wait_for_answers(ANSWER_SECONDS)
    forget_aws()
    logging.basicConfig(filename=folder / "soak.log", level=logging.INFO)
    out = Console()
    status = 1
    try:
        status = _soak(options, folder, out)
    except HeadraceError as error:
        out.print(str(error), style="red", soft_wrap=True, markup=False)
        status = INTERRUPTED if isinstance(error, Stopped) else 1
        _name(folder, out)
    except KeyboardInterrupt:
        status = INTERRUPTED
        _name(folder, out)
    if status == 0:
        shutil.rmtree(folder)
    return status


def _soak(options: argparse.Namespace, folder: Path, out: Console) -> int:
    seed = SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    chance = Random(seed)
    feed = Feed.of(load(options.orders), chance)
    out.print(
        f"seed {seed} (SEED={seed} repeats what is sent and who is to be killed when), "
        f"tables on {'dynoxide' if has_dynoxide() else 'ministack'}",
        soft_wrap=True,
        highlight=False,
    )
    shortest, longest = sorted(options.kill_every)
    killing = Killing(chance, shortest, longest)
    run = Run(feed, killing, options.patience, folder, Console(stderr=True))
    ended = asyncio.run(run.go())
    show(ended.verdict, feed, ended.kills, ended.seconds, out)
    return _conclude(ended, folder, out)


def _conclude(ended: Ended, folder: Path, out: Console) -> int:
    """The last lines, and the exit status."""
    failed = ended.verdict.failed
    if ended.gave_up:
        out.print(ended.gave_up, style="red", soft_wrap=True, markup=False)
    for check in failed:
        text = f"wrong: {check.name}: {check.wrong}"
        out.print(text, style="red", soft_wrap=True, markup=False)
    if failed or ended.gave_up:
        _name(folder, out)
    out.print(ended.verdict.line(), soft_wrap=True, highlight=False)
    return 1 if failed or ended.gave_up else 0


def _name(folder: Path, out: Console) -> None:
    out.print(f"mail and logs are in {folder}", soft_wrap=True, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.soak", description=__doc__)
    parser.add_argument("--orders", type=number_of_orders, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N", help="what another run has printed")
    parser.add_argument(
        "--kill-every",
        type=float,
        nargs=2,
        default=(0.5, 2.0),
        metavar=("SECONDS", "SECONDS"),
        help="one worker is killed after a random time between these (default: 0.5 2)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="give up when nothing has changed for so long (default: 120)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
