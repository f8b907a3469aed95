"""What `headrace worker` makes of its options, its variables and their mistakes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from headrace.hosts.settings import WORKER, Address, WorkerSettings
from headrace.service import Service
from tests.unit.cli.conftest import Headrace

STORE = "shop.app:store"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[WorkerSettings]:
    """The settings of every worker that was started; each of them is told to stop at once."""
    found: list[WorkerSettings] = []

    async def run_worker(
        services: Sequence[Service], *, settings: WorkerSettings, stop: asyncio.Event
    ) -> None:
        assert [service.name for service in services] == ["store"]
        found.append(settings)
        stop.set()

    monkeypatch.setattr("headrace.hosts.worker.run_worker", run_worker)
    return found


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None of the settings, and no handler of the log that writes into this test for ever."""
    for setting in WORKER.values():
        monkeypatch.delenv(setting.variable, raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_without_options_the_defaults_hold(
    headrace: Headrace, started: list[WorkerSettings]
) -> None:
    assert headrace("worker", STORE).code == 0
    assert started == [WorkerSettings()]


def test_every_setting_has_an_option(headrace: Headrace, started: list[WorkerSettings]) -> None:
    options = {
        "--concurrency": "20",
        "--prefetch": "5",
        "--pollers": "2",
        "--tenant-concurrency": "3",
        "--wait": "2.5",
        "--patience": "1",
        "--visibility": "30",
        "--drain": "0",
        "--health": "0.0.0.0:8080",
    }
    given = [word for option in options.items() for word in option]

    headrace("worker", STORE, *given, "--no-scale-in-protection")

    assert started == [
        WorkerSettings(
            concurrency=20,
            prefetch=5,
            pollers=2,
            per_tenant=3,
            wait=timedelta(seconds=2.5),
            patience=timedelta(seconds=1),
            visibility=timedelta(seconds=30),
            drain=timedelta(0),
            health=Address("0.0.0.0", 8080),
            scale_in_protection=False,
        )
    ]


def test_an_option_wins_over_its_variable(
    headrace: Headrace, started: list[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CONCURRENCY", "7")
    monkeypatch.setenv("HEADRACE_PREFETCH", "8")
    monkeypatch.setenv("HEADRACE_SCALE_IN_PROTECTION", "off")

    headrace("worker", STORE, "--concurrency", "9", "--scale-in-protection")

    assert started == [WorkerSettings(concurrency=9, prefetch=8)]


def test_what_cannot_be_used_is_said_at_once_and_nothing_is_started(
    headrace: Headrace, started: list[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_DRAIN_SECONDS", "soon")

    ended = headrace("worker", STORE, "--concurrency", "0", "--wait", "21")

    assert (ended.code, started) == (2, [])
    assert ended.err.splitlines() == [
        "headrace: concurrency (HEADRACE_CONCURRENCY) is '0': write a whole number from 1 up.",
        "wait (HEADRACE_WAIT_SECONDS) is '21': write a number of seconds, 0 to 20.",
        "HEADRACE_DRAIN_SECONDS is 'soon': write a number of seconds, 0 or more.",
    ]


def test_the_help_names_every_variable(headrace: Headrace) -> None:
    said = headrace("worker", "--help").out

    assert [s.variable for s in WORKER.values() if s.variable not in said] == []
