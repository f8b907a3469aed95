"""Every case of the table on every host.

    python -m tests.parity [TEXT …]

With texts, only the cases whose names contain one of them. The last line counts:
`cases=N failed=M`, N cases of the table, and M pairs of a case and a host that are not as the table
says. The status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.hosts.emulator import ministack
from tests.parity.case import Case
from tests.parity.hosts import HOSTS, Host, all_hosts
from tests.parity.play import play
from tests.parity.table import CASES
from tests.parity.verdict import findings


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    cases = [c for c in CASES if not options.texts or any(t in c.name for t in options.texts)]
    if not cases:
        sys.stderr.write("No case has a name with this in it.\n")
        return 2
    # What goes wrong here goes wrong on purpose.
    logging.disable(logging.CRITICAL)
    failed = asyncio.run(_run(cases))
    sys.stdout.write(f"cases={len(cases)} failed={failed}\n")
    return 1 if failed else 0


async def _run(cases: Sequence[Case]) -> int:
    """The hosts side by side, the cases of each one after the other."""
    with tempfile.TemporaryDirectory(prefix="headrace-parity-") as scratch:
        async with ministack() as url, all_hosts(url, Path(scratch)) as hosts:
            columns = await asyncio.gather(*(_column(cases, hosts[name]) for name in HOSTS))
    rows = [dict(zip(HOSTS, row, strict=True)) for row in zip(*columns, strict=True)]
    for number, (case, row) in enumerate(zip(cases, rows, strict=True), start=1):
        _print(number, case, row)
    return sum(bool(found) for row in rows for found in row.values())


async def _column(cases: Sequence[Case], host: Host) -> list[list[str]]:
    return [await tried(case, host) for case in cases]


async def tried(case: Case, host: Host) -> list[str]:
    """What is not as the case says; nothing, if it all is."""
    try:
        return findings(case, await play(case, host))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def _print(number: int, case: Case, row: Mapping[str, Sequence[str]]) -> None:
    marks = "  ".join("ok    " if not row[name] else "FAILED" for name in HOSTS)
    sys.stdout.write(f"{number:4}  {marks}  {case.name}\n")
    for name, found in row.items():
        for finding in found:
            sys.stdout.write(f"{'':30}{name}: {finding}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="in the names of cases")
    return parser


if __name__ == "__main__":
    sys.exit(main())
