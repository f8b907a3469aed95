"""The traces of some runs of the shop, to be compared byte for byte.

python -m tests.simulation.traces 0 1 2
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from headrace.testing.simulation.plan import Plan, Setting
from headrace.testing.simulation.run import run
from services.simulation.invariants import ALWAYS, IN_THE_END, is_expected
from services.simulation.shop import RESOURCES, SERVICES, orders

SHOP = Setting(
    services=SERVICES,
    scenario=orders,
    invariants=IN_THE_END,
    always=ALWAYS,
    resources={service.name: opened for service, opened in RESOURCES.items()},
    expected_letter=is_expected,
)


def trace(seed: int) -> str:
    """Everything that happened in one run, a line each."""
    found = run(SHOP, Plan(seed), traced=True)
    lines = [
        f"{entry.at!r}\t{entry.lane}\t{entry.kind.name}\t{entry.text}\t{' '.join(entry.about)}"
        for entry in found.entries
    ]
    return "\n".join([*lines, f"{found.seconds!r} {found.struck!r} {found.wrong!r}", ""])


def main(arguments: Sequence[str]) -> None:
    for seed in arguments:
        sys.stdout.write(trace(int(seed)))


if __name__ == "__main__":
    main(sys.argv[1:])
