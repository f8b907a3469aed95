"""Take one protection out of the library at a time, and see whether the simulated shop notices.

    python -m tests.sabotage [NAME …]

The last line counts: `sabotages=N caught=N`. The status is 1 if one was not caught.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.sabotage.laboratory import SEEDS, caught
from tests.sabotage.sabotages import SABOTAGES


def main(arguments: Sequence[str]) -> int:
    wanted = [s for s in SABOTAGES if not arguments or s.name in arguments]
    found = 0
    for sabotage in wanted:
        violation = caught(sabotage)
        if violation is None:
            sys.stdout.write(f"{sabotage.name}: not caught within {SEEDS} seeds\n")
            continue
        found += 1
        if arguments:
            sys.stdout.write(f"{violation}\n\n")
        first = str(violation).partition("\n")[0]
        sys.stdout.write(f"{sabotage.name}: seed {violation.seed}: {first}\n")
        sys.stdout.flush()
    sys.stdout.write(f"sabotages={len(wanted)} caught={found}\n")
    return 0 if found == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
