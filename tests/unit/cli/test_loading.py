"""Naming services on the command line, rightly and wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Headrace


def test_a_service_is_found_in_the_working_directory(headrace: Headrace) -> None:
    ended = headrace("topology", "shop.app:till")

    assert ended.code == 0
    assert "queue   till" in ended.out


def test_a_service_that_is_named_twice_is_one(headrace: Headrace) -> None:
    ended = headrace("topology", "shop.app:till", "shop.app:till")

    assert ended.code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop.app:tilt", "shop.app has these services: store, till."),
        ("shop.app", "shop.app has these services: store, till."),
        ("shop.app:opening_hours", "of the type str, not a Service"),
        ("shop:till", "shop has no services."),
        ("shop.ap:till", "shop has these modules: app."),
        ("shop.a.b.c:till", "shop has these modules: app."),
        ("shp.app:till", "has these: shop."),
    ],
)
def test_a_wrong_name_is_answered_with_what_there_is(
    headrace: Headrace, name: str, said: str
) -> None:
    ended = headrace("check", name)

    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_a_module_that_fails_says_with_what(headrace: Headrace, project: Path) -> None:
    (project / "broken.py").write_text("import nowhere_to_be_found")

    ended = headrace("check", "broken:service")

    assert ended.code == 2
    assert "broken could not be imported (ModuleNotFoundError: No module named 'now" in ended.err


def test_a_wrong_definition_is_one_sentence(headrace: Headrace, project: Path) -> None:
    (project / "wrong.py").write_text('from headrace import Service\nservice = Service("a b")')

    ended = headrace("check", "wrong:service")

    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "'a b' cannot be used" in ended.err


def test_the_traceback_is_shown_on_demand(headrace: Headrace) -> None:
    ended = headrace("--traceback", "check", "shop.app:tilt")

    assert ended.code == 2
    assert "Traceback" in ended.err
