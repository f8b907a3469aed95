"""What every test may count on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.events import registry


@pytest.fixture(autouse=True)
def forget_events() -> Iterator[None]:
    """Events that a test defines are gone after it, so that tests can use one name each."""
    with registry.scratch():
        yield
