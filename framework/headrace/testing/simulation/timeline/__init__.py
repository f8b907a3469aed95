"""A run as people read it: as text in a terminal, and as a page in a browser."""

from __future__ import annotations

from headrace.testing.simulation.timeline.page import as_page
from headrace.testing.simulation.timeline.text import as_text

__all__ = ["as_page", "as_text"]
