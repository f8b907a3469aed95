"""Sagas: work over several services that is done as a whole, or undone as a whole."""

from __future__ import annotations

from headrace.saga.definition import Abort, Retries, Saga, TimedOut, on, step
from headrace.saga.progress import Status, StepStatus

__all__ = ["Abort", "Retries", "Saga", "Status", "StepStatus", "TimedOut", "on", "step"]
