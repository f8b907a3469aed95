"""Take one protection out of the library at a time, and see whether a simulation notices.

    python -m tests.sabotage [--hints] [NAME …]

Those that are named are shown with a timeline. `--hints` prints the seeds for `around=`. The last
line counts: `sabotages=N caught=N`. The status is 1 if one was not caught.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.sabotage.laboratory import search, timeline
from tests.sabotage.sabotage import Sabotage
from tests.sabotage.sabotages import SABOTAGES


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    wanted = [s for s in SABOTAGES if not options.names or s.name in options.names]
    unknown = set(options.names) - {sabotage.name for sabotage in wanted}
    if unknown:
        sys.stderr.write(f"There is no sabotage {sorted(unknown)[0]!r}.\n")
        return 2
    caught = sum(_is_caught(sabotage, options) for sabotage in wanted)
    sys.stdout.write(f"sabotages={len(wanted)} caught={caught}\n")
    return 0 if caught == len(wanted) else 1


def _is_caught(sabotage: Sabotage, options: argparse.Namespace) -> bool:
    searched = search(sabotage)
    found = searched.found
    if found is not None and options.names:
        sys.stdout.write(f"{timeline(sabotage, found.plan.seed)}\n\n")
    if found is not None and options.hints:
        sys.stdout.write(f"{sabotage.name}: around={found.plan.seed}\n")
    else:
        sys.stdout.write(f"{searched}\n")
    sys.stdout.flush()
    return found is not None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these only")
    parser.add_argument("--hints", action="store_true", help="print the seeds for around=")
    return parser


if __name__ == "__main__":
    sys.exit(main())
