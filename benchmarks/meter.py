"""Ports that count what would stand on the bill: those of `headrace cost`."""

from __future__ import annotations

from headrace.cost.meter import Meter

__all__ = ["Meter"]
