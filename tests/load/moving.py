"""A service that moves from Lambda to a worker and back while orders keep coming.

    python -m tests.load.moving [--orders 300] [--moves 4] [--seed N]

The sample shop runs on emulators: order and notification on workers, inventory on Lambda at first.
At each move the other host starts, both take from the one queue for a while, and then the first is
stopped in the middle of its work: an invocation is killed and the mapping disabled during the next
one, or the worker is told to stop by SIGTERM. The last line sums up, and the status is 1 if
anything was lost or doubled, or one of the hosts had nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from headrace.errors import HeadraceError
from services.demo.environment import number_of_orders
from tests.load.move import Ended, moved


def main() -> int:
    options = _parser().parse_args()
    seed = SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="headrace-moving-"))
    logging.basicConfig(filename=folder / "moving.log", level=logging.INFO)
    print(f"seed {seed} (--seed {seed} repeats what is sent twice)", flush=True)
    limit = 90 + 0.5 * options.orders
    try:
        status = _conclude(
            asyncio.run(moved(options.orders, options.moves, folder, seed=seed, limit=limit))
        )
    except HeadraceError as error:
        print(error)
        status = 1
    if status:
        print(f"mail and logs are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return status


def _conclude(ended: Ended) -> int:
    """The last lines, and the exit status."""
    again = ", ".join(f"{n} on {host}" for host, n in sorted(ended.witness.duplicates.items()))
    print(f"came again and found their effects standing: {again}")
    for wrong in ended.wrong:
        print(f"wrong: {wrong}")
    print(ended.line())
    return 1 if ended.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.moving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--orders", type=number_of_orders, default=300, metavar="N")
    parser.add_argument("--moves", type=int, default=4, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N", help="what another run has printed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
