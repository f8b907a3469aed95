"""AWS on a laptop, under seeded faults: duplicates, crashes, delays, lost answers, throttles.

    report = simulate([order, inventory], scenario, [stock_adds_up], seeds=1000)

The real worker, pipeline, commit and relay run in a time and with a chance that one seed decides.
"""

from __future__ import annotations

from headrace.testing.simulation.faults import KINDS, Faults
from headrace.testing.simulation.plan import Rollout
from headrace.testing.simulation.report import Report
from headrace.testing.simulation.simulate import Violation, simulate, simulation
from headrace.testing.simulation.world import World

__all__ = [
    "KINDS",
    "Faults",
    "Report",
    "Rollout",
    "Violation",
    "World",
    "simulate",
    "simulation",
]
