"""What every test may count on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.events import registry

# An installed headrace brings it along; a checkout on the path alone does not.
pytest_plugins = ["headrace_pytest"]


@pytest.fixture(autouse=True)
def forget_events() -> Iterator[None]:
    """Events that a test defines are gone after it, so that tests can use one name each."""
    with registry.scratch():
        yield
