"""How a host runs, as code, the environment and the command line say it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigurationError
from headrace.hosts.settings import (
    LAMBDA,
    OBSERVE,
    VARIABLES,
    WORKER,
    Address,
    LambdaSettings,
    ObserveSettings,
    Setting,
    Settings,
    WorkerSettings,
)

ROOT = Path(__file__).parents[2]
SECOND = timedelta(seconds=1)


def test_an_empty_environment_leaves_the_defaults() -> None:
    assert WorkerSettings.from_environment({}) == WorkerSettings()
    assert LambdaSettings.from_environment({}) == LambdaSettings()
    assert ObserveSettings.from_environment({}) == ObserveSettings()


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("HEADRACE_CONCURRENCY", "1", "concurrency", 1),
        ("HEADRACE_PREFETCH", "0", "prefetch", 0),
        ("HEADRACE_PREFETCH", "20", "prefetch", 20),
        ("HEADRACE_POLLERS", "3", "pollers", 3),
        ("HEADRACE_TENANT_CONCURRENCY", "2", "per_tenant", 2),
        ("HEADRACE_WAIT_SECONDS", "0", "wait", timedelta(0)),
        ("HEADRACE_WAIT_SECONDS", "1.5", "wait", 1.5 * SECOND),
        ("HEADRACE_PATIENCE_SECONDS", "0.1", "patience", 0.1 * SECOND),
        ("HEADRACE_VISIBILITY_SECONDS", "1", "visibility", SECOND),
        ("HEADRACE_VISIBILITY_SECONDS", "43200", "visibility", timedelta(hours=12)),
        ("HEADRACE_DRAIN_SECONDS", "0", "drain", timedelta(0)),
        ("HEADRACE_DRAIN_SECONDS", "115", "drain", 115 * SECOND),
        ("HEADRACE_HEALTH", "8080", "health", Address("127.0.0.1", 8080)),
        ("HEADRACE_HEALTH", "0.0.0.0:8080", "health", Address("0.0.0.0", 8080)),
        ("HEADRACE_HEALTH", "localhost:0", "health", Address("localhost", 0)),
        ("HEADRACE_HEALTH", "[::1]:8080", "health", Address("::1", 8080)),
        ("HEADRACE_SCALE_IN_PROTECTION", "off", "scale_in_protection", False),
        ("HEADRACE_SCALE_IN_PROTECTION", "False", "scale_in_protection", False),
        ("HEADRACE_SCALE_IN_PROTECTION", "0", "scale_in_protection", False),
        ("HEADRACE_SCALE_IN_PROTECTION", "ON", "scale_in_protection", True),
        ("HEADRACE_SCALE_IN_PROTECTION", "true", "scale_in_protection", True),
        ("HEADRACE_SCALE_IN_PROTECTION", " 1 ", "scale_in_protection", True),
    ],
)
def test_a_variable_sets_one_field(variable: str, text: str, field: str, value: Any) -> None:
    assert WorkerSettings.from_environment({variable: text}) == WorkerSettings(**{field: value})


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("HEADRACE_TRACING", "xray", "tracing", "xray"),
        ("HEADRACE_TRACING", "OTel", "tracing", "otel"),
        ("HEADRACE_TRACING", "off", "tracing", "off"),
        ("HEADRACE_METRICS", "EMF", "metrics", "emf"),
        ("HEADRACE_METRICS_NAMESPACE", "Shop/staging", "metrics_namespace", "Shop/staging"),
        ("HEADRACE_METRICS_SECONDS", "0.5", "metrics_interval", 0.5 * SECOND),
        ("HEADRACE_LOGS", " JSON ", "logs", "json"),
        ("HEADRACE_LOG_LEVEL", "warning", "log_level", "WARNING"),
        ("HEADRACE_LOG_PAYLOADS", "on", "log_payloads", True),
    ],
)
def test_a_variable_sets_one_field_of_what_is_told(
    variable: str, text: str, field: str, value: Any
) -> None:
    assert ObserveSettings.from_environment({variable: text}) == ObserveSettings(**{field: value})


def test_nothing_is_told_to_aws_and_no_payload_to_anyone_unless_it_is_asked_for() -> None:
    settings = ObserveSettings()
    assert (settings.tracing, settings.metrics, settings.log_payloads) == ("off", "off", False)


def test_lambda_reads_its_three_variables() -> None:
    environ = {
        "HEADRACE_CONCURRENCY": "4",
        "HEADRACE_TENANT_CONCURRENCY": "2",
        "HEADRACE_MARGIN_SECONDS": "1.5",
        "HEADRACE_DRAIN_SECONDS": "a worker's",
    }
    wanted = LambdaSettings(concurrency=4, per_tenant=2, margin=1.5 * SECOND)
    assert LambdaSettings.from_environment(environ) == wanted


def test_what_is_given_wins_over_the_environment() -> None:
    environ = {"HEADRACE_CONCURRENCY": "no number", "HEADRACE_PREFETCH": "5"}
    found = WorkerSettings.from_environment(environ, concurrency=3, wait=2 * SECOND)
    assert found == WorkerSettings(concurrency=3, prefetch=5, wait=2 * SECOND)


def test_what_is_given_as_text_is_read_as_the_environment_is() -> None:
    found = WorkerSettings.from_environment({}, concurrency="3", drain="1.5", health="8080")
    wanted = WorkerSettings(concurrency=3, drain=1.5 * SECOND, health=Address("127.0.0.1", 8080))
    assert found == wanted


@pytest.mark.parametrize("nothing", ["", "  "])
def test_an_empty_variable_is_not_set(nothing: str) -> None:
    environ = {setting.variable: nothing for setting in WORKER.values()}
    assert WorkerSettings.from_environment(environ) == WorkerSettings()


@pytest.mark.parametrize("nothing", [None, ""])
def test_what_is_given_as_nothing_leaves_it_to_the_environment(nothing: str | None) -> None:
    found = WorkerSettings.from_environment({"HEADRACE_PREFETCH": "5"}, prefetch=nothing)
    assert found == WorkerSettings(prefetch=5)


def test_a_field_that_does_not_exist_cannot_be_given() -> None:
    with pytest.raises(TypeError, match="threads"):
        WorkerSettings.from_environment({}, threads=3)


# --- what cannot be used ---------------------------------------------------------------

SECONDS = "write a number of seconds, "
UNUSABLE = {
    "HEADRACE_CONCURRENCY": (["0", "-1", "ten", "1.5", "nan"], "write a whole number from 1 up."),
    "HEADRACE_PREFETCH": (["-1", "1e3"], "write a whole number from 0 up."),
    "HEADRACE_POLLERS": (["0", "21"], "write a whole number from 1 to 20."),
    "HEADRACE_TENANT_CONCURRENCY": (["0"], "write a whole number from 1 up."),
    "HEADRACE_WAIT_SECONDS": (["-1", "20.1", "20s", "nan"], SECONDS + "0 to 20."),
    "HEADRACE_PATIENCE_SECONDS": (["0", "-1", "inf", "1e300"], SECONDS + "more than 0."),
    "HEADRACE_VISIBILITY_SECONDS": (
        ["0", "0.9", "43200.1"],
        SECONDS + "1 to 43200, which is 12 hours.",
    ),
    "HEADRACE_DRAIN_SECONDS": (["-0.1", "1m"], SECONDS + "0 or more."),
    "HEADRACE_HEALTH": (
        ["-1", "65536", "::1:80", ":80", "[]:80", "[::1]", "http://a:80", "a b:80", "a:b", "a:"],
        "write a port such as 8080, or with a host 0.0.0.0:8080 or [::]:8080.",
    ),
    "HEADRACE_SCALE_IN_PROTECTION": (["2", "offf"], "write on or off."),
}


@pytest.mark.parametrize(
    ("variable", "text"), [(name, text) for name, (texts, _) in UNUSABLE.items() for text in texts]
)
def test_a_value_that_cannot_be_used_is_answered_with_what_to_write(
    variable: str, text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WorkerSettings.from_environment({variable: text})
    assert str(caught.value) == f"{variable} is {text!r}: {UNUSABLE[variable][1]}"


UNUSABLE_TO_TELL = {
    "HEADRACE_TRACING": (["x-ray", "on"], "write off, xray or otel."),
    "HEADRACE_METRICS": (["on", "statsd"], "write off or emf."),
    "HEADRACE_METRICS_NAMESPACE": (
        ["a b", "ä", "x" * 256],
        "write 1 to 255 letters, digits and ._-/#:.",
    ),
    "HEADRACE_METRICS_SECONDS": (["0", "-1", "inf", "10s"], SECONDS + "more than 0."),
    "HEADRACE_LOGS": (["yaml"], "write text or json."),
    "HEADRACE_LOG_LEVEL": (["CRITICAL", "20"], "write DEBUG, INFO, WARNING or ERROR."),
    "HEADRACE_LOG_PAYLOADS": (["redacted"], "write on or off."),
}


@pytest.mark.parametrize(
    ("variable", "text"),
    [(name, text) for name, (texts, _) in UNUSABLE_TO_TELL.items() for text in texts],
)
def test_what_nobody_can_be_told_by_is_answered_with_what_to_write(
    variable: str, text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ObserveSettings.from_environment({variable: text})
    assert str(caught.value) == f"{variable} is {text!r}: {UNUSABLE_TO_TELL[variable][1]}"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tracing", "XRAY", "'XRAY': give off, xray or otel."),
        ("metrics", None, "None: give off or emf."),
        ("metrics_namespace", "", "'': give 1 to 255 letters, digits and ._-/#:."),
        ("metrics_interval", 10, "10: give a timedelta, more than 0."),
        ("log_level", logging.INFO, "20: give DEBUG, INFO, WARNING or ERROR."),
        ("log_payloads", "on", "'on': give True or False."),
    ],
)
def test_code_is_told_how_to_be_told(field: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ObserveSettings(**{field: value})
    assert str(caught.value) == f"{field} is {said}"


def test_every_variable_of_what_is_told_is_known_to_refuse_something() -> None:
    assert set(UNUSABLE_TO_TELL) == {setting.variable for setting in OBSERVE.values()}


def test_every_variable_of_a_worker_is_known_to_refuse_something() -> None:
    assert set(UNUSABLE) == {setting.variable for setting in WORKER.values()}


def test_a_margin_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^HEADRACE_MARGIN_SECONDS is '0': write a num"):
        LambdaSettings.from_environment({"HEADRACE_MARGIN_SECONDS": "0"})


def test_all_that_cannot_be_used_is_said_at_once() -> None:
    environ = {"HEADRACE_CONCURRENCY": "ten", "HEADRACE_DRAIN_SECONDS": "-1"}
    with pytest.raises(ConfigurationError) as caught:
        WorkerSettings.from_environment(environ, wait=21 * SECOND)
    assert str(caught.value).splitlines() == [
        "HEADRACE_CONCURRENCY is 'ten': write a whole number from 1 up.",
        "wait (HEADRACE_WAIT_SECONDS) is 21 s: write a number of seconds, 0 to 20.",
        "HEADRACE_DRAIN_SECONDS is '-1': write a number of seconds, 0 or more.",
    ]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("concurrency", 0, "0: give a whole number from 1 up."),
        ("concurrency", True, "True: give a whole number from 1 up."),
        ("concurrency", None, "None: give a whole number from 1 up."),
        ("prefetch", 1.0, "1.0: give a whole number from 0 up."),
        ("wait", 20, "20: give a timedelta, 0 to 20."),
        ("drain", -SECOND, "-1 s: give a timedelta, 0 or more."),
        ("patience", timedelta(0), "0 s: give a timedelta, more than 0."),
        ("scale_in_protection", 1, "1: give True or False."),
        ("health", "8080", "'8080': give an Address such as Address("),
        ("health", Address("", 80), "Address(host='', port=80): give an Address such as"),
        ("health", Address("::1", 65536), "Address(host='::1', port=65536): give an Address"),
    ],
)
def test_code_is_told_what_to_give(field: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WorkerSettings(**{field: value})
    assert str(caught.value).startswith(f"{field} is {said}")


def test_code_is_told_everything_at_once_too() -> None:
    with pytest.raises(ConfigurationError) as caught:
        LambdaSettings(concurrency=0, per_tenant=0, margin=timedelta(0))
    assert len(str(caught.value).splitlines()) == 3


# --- variables that mean nothing -------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("HEADRACE_CONCURENCY", "HEADRACE_CONCURRENCY"),
        ("HEADRACE_DRAIN", "HEADRACE_DRAIN_SECONDS"),
        ("HEADRACE_DRAIN_SECOND", "HEADRACE_DRAIN_SECONDS"),
        ("HEADRACE_NAME_SPACE", "HEADRACE_NAMESPACE"),
        ("HEADRACE_LOG", "HEADRACE_LOGS"),
        ("HEADRACE_METRIC", "HEADRACE_METRICS"),
    ],
)
def test_a_misspelled_variable_is_warned_of(
    written: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    WorkerSettings.from_environment({written: "1"})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        f"{written} means nothing to headrace: did you mean {meant}?"
    )


def test_a_misspelled_variable_is_warned_of_once_however_many_settings_are_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ = {"HEADRACE_PREFETCHES": "1"}
    for settings in (ObserveSettings, LambdaSettings, WorkerSettings, ObserveSettings):
        settings.from_environment(environ)
    assert [record.getMessage().split()[2] for record in caplog.records] == ["HEADRACE_PREFETCHES"]


def test_what_is_close_to_nothing_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    environ = dict.fromkeys([*VARIABLES, "HEADRACE_COLOUR", "HEADRACE_", "CONCURENCY"], "")
    WorkerSettings.from_environment(environ)
    assert caplog.records == []


def test_every_variable_that_the_project_reads_is_known() -> None:
    places = [*(ROOT / "framework").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    found = {
        name for place in places for name in re.findall(r"HEADRACE_[A-Z_]*[A-Z]", place.read_text())
    }
    assert found - VARIABLES == set()


# --- what goes with them ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "settings"),
    [(WorkerSettings, WORKER), (LambdaSettings, LAMBDA), (ObserveSettings, OBSERVE)],
)
def test_every_field_can_be_set_by_the_environment(
    cls: type[Settings], settings: dict[str, Setting]
) -> None:
    assert [field.name for field in fields(cls)] == list(settings)


@pytest.mark.parametrize(
    ("title", "settings"),
    [("Worker", WORKER), ("Lambda", LAMBDA), ("Logs, metrics and traces", OBSERVE)],
)
def test_the_reference_has_every_setting_with_its_variable(
    title: str, settings: dict[str, Setting]
) -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` .*?\| `(HEADRACE_\w+)` \|", section, re.M)
    assert rows == [(name, setting.variable) for name, setting in settings.items()]


def test_reading_the_settings_imports_nothing_that_takes_time() -> None:
    script = (
        "import sys, types\n"
        "package = types.ModuleType('headrace')\n"  # whose own import is that of everything
        f"package.__path__ = [{str(ROOT / 'framework' / 'headrace')!r}]\n"
        "sys.modules['headrace'] = package\n"
        "from headrace.hosts.settings import LambdaSettings\n"
        "LambdaSettings.from_environment({'HEADRACE_CONCURRENCY': '5'})\n"
        "print([name for name in ('pydantic', 'asyncio', 'difflib') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout == "[]\n"
