"""The table of deviations and the tests that refer to it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contract.deviations import DEVIATIONS


def test_every_deviation_is_shown_by_a_test_and_said_once() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("*/test_*.py")]
    shown = {name for text in sources for name in re.findall(r'@deviates\("([^"]+)"\)', text)}

    assert shown == {row.name for row in DEVIATIONS}
    assert len({(row.backend, row.name) for row in DEVIATIONS}) == len(DEVIATIONS)
