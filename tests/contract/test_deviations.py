"""The table of deviations, the tests that show them, and the page that tells of them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.contract.deviations import DEVIATIONS, Deviation

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "emulators.md"


def shown() -> dict[str, list[tuple[Path, str]]]:
    """The tests that show a deviation, by its name, in the order in which they stand."""
    found: defaultdict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path in sorted(HERE.glob("*/test_*.py")):
        for test in ast.parse(path.read_text()).body:
            for name in named_by(test):
                found[name].append((path, getattr(test, "name", "")))
    return found


def named_by(test: ast.stmt) -> Iterator[str]:
    """What the `@deviates(…)` of a test names."""
    for mark in getattr(test, "decorator_list", []):
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "deviates":
            yield from (str(ast.literal_eval(argument)) for argument in mark.args)


def line(row: Deviation, shows: list[tuple[Path, str]]) -> str:
    """The line of the page that tells of this row, with the first test that shows it."""
    path, test = shows[0]
    link = f"[{test}](../../{path.relative_to(HERE.parents[1])})"
    return f"| `{row.name}` | {row.backend} | {row.sentence} | {link} |"


def test_every_deviation_is_shown_by_a_test_and_said_once() -> None:
    assert shown().keys() == {row.name for row in DEVIATIONS}
    assert len({(row.backend, row.name) for row in DEVIATIONS}) == len(DEVIATIONS)


def test_the_page_tells_of_every_deviation_and_of_nothing_else() -> None:
    tests = shown()
    expected = [line(row, tests[row.name]) for row in DEVIATIONS]

    told = re.findall(r"^\| `[a-z0-9-]+` \| \w+ \| .*$", PAGE.read_text(), re.M)

    assert told == expected, "The table of the page has to be:\n" + "\n".join(expected)
