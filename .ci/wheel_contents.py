"""Says what is wrong with an installed wheel. Run by the interpreter the wheel was put into."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOTS = {"headrace", "headrace_pytest.py"}
IMPORTABLE = ("headrace", "headrace.hosts.lambda_", "headrace.testing")
ABSENT = ("services", "schemas", "tests")


def problems(wheel: Path) -> Iterator[str]:
    """Sentences, one per problem; none when the wheel is as it should be."""
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names}
    for root in sorted(roots - ROOTS):
        if not root.endswith(".dist-info"):
            yield f"the wheel contains {root!r}, which is not part of the library"
    if "headrace/py.typed" not in names:
        yield "the wheel lacks headrace/py.typed, so its types are not seen"
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        yield "the wheel lacks its LICENSE"
    for module in ABSENT:
        if importlib.util.find_spec(module):
            yield f"{module!r} can be imported where only the wheel is installed"
    for module in IMPORTABLE:
        try:
            origin = importlib.import_module(module).__file__ or ""
        except ImportError as error:
            yield f"{module!r} cannot be imported with the core dependencies alone: {error}"
            continue
        if not Path(origin).is_relative_to(sys.prefix):
            yield f"{module!r} was imported from {origin}, not from the wheel"


def main() -> int:
    wheel = Path(sys.argv[1])
    found = list(problems(wheel))
    for problem in found:
        sys.stderr.write(f"{wheel.name}: {problem}\n")
    if not found:
        sys.stdout.write(f"{wheel.name}: holds and needs nothing but the library\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
