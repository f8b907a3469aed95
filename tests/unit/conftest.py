"""What several files of these tests begin with."""

from __future__ import annotations

import pytest

from tests.unit.depot import Depot, open_depot


@pytest.fixture
def depot() -> Depot:
    return open_depot()
