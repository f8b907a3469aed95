"""Change the library in many small ways, and see whether a test notices.

    python -m tests.mutation pipeline inbox

The last line counts: `mutants=N killed=N survived=N`. Those that survive are listed before it, each
with its change; `survivors.md` says why some of them may. The status is 1 if any survived that is
not listed there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.session import MutationSession

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "framework" / "headrace"
SURVIVORS = Path(__file__).with_name("survivors.md")

MODULES = (
    *("commit", "expressions", "group", "inbox", "lease"),
    *("outbox", "pipeline", "reads", "record", "transaction"),
)

# A test of chance would kill a mutant today and let it live tomorrow.
TESTS = (
    *("beside", "client", "coalesce", "connection", "fallbacks", "group", "lease"),
    *("lease_attempts", "lease_edges", "outbox", "pipeline", "policy", "relay", "service"),
    *("small_changes", "transaction", "writes"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="MODULE")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="files tests/unit/test_<NAME>.py")
    arguments = parser.parse_args()
    session = MutationSession(
        {f"headrace.{module}": mutants_in(module) for module in arguments.modules}
    )
    files = [f"{ROOT}/tests/unit/test_{name}.py" for name in arguments.tests]
    options = ["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    pytest.main([*options, *files], plugins=[session])
    if not session.finished:
        return 2
    return report(session)


def mutants_in(module: str) -> list[Mutant]:
    path = LIBRARY / f"{module}.py"
    return mutants_of(path.read_text(), path)


def report(session: MutationSession) -> int:
    known = SURVIVORS.read_text() if SURVIVORS.exists() else ""
    new = 0
    for mutant in session.survivors:
        is_known = f"`{mutant.name}`" in known
        new += not is_known
        print(f"{'known' if is_known else 'NEW'} {mutant.name}  (line {mutant.lines.start})")
    for mutant in session.broken:
        print(f"not tried {mutant.name}")
    survived = len(session.survivors)
    print(f"mutants={session.count} killed={session.count - survived} survived={survived}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
