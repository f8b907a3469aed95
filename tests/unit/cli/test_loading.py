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
        ("./shop/app:till", "'./shop/app:till' is a path, and not the name of a module: write sho"),
        ("shop/app.py:till", "is a path, and not the name of a module: write shop.app:till."),
        ("shop.app.py:till", "is a path, and not the name of a module: write shop.app:till."),
        ("./shop:till", "write shop:till."),
        ("../shop:till", "write its name as Python imports it"),
        ("/srv/shop.py", "write its name as Python imports it"),
        ("", "'' names no module: write module:service"),
        (":till", "':till' names no module: write module:service"),
        ("shop.app:Bought", "is the class Bought, not a Service. shop.app has these services: st"),
    ],
)
def test_a_wrong_name_is_answered_with_what_there_is(
    headrace: Headrace, name: str, said: str
) -> None:
    ended = headrace("check", name)

    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_a_module_that_fails_says_with_what_and_where(headrace: Headrace, project: Path) -> None:
    (project / "broken.py").write_text("import nowhere_to_be_found")

    ended = headrace("check", "broken:service")

    assert ended.code == 2
    assert ended.err == (
        "headrace: broken could not be imported (ModuleNotFoundError: No module named "
        "'nowhere_to_be_found'), at broken.py:1. `headrace --traceback …` shows more.\n"
    )


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("a = 1\nb = c\n", "(NameError: name 'c' is not defined), at shop/inner.py:2."),
        ("a = 1\nb = (\n", ", at shop/inner.py:2."),
        ("import json\n\njson.loads('')\n", ", at shop/inner.py:3."),
    ],
)
def test_an_import_that_fails_names_the_innermost_line_of_the_project(
    headrace: Headrace, project: Path, inner: str, said: str
) -> None:
    (project / "shop" / "inner.py").write_text(inner)
    (project / "broken.py").write_text("import shop.inner\n")

    ended = headrace("check", "broken:service")

    assert said in ended.err


def test_of_the_modules_that_there_are_the_nearest_is_named_first(
    headrace: Headrace, project: Path
) -> None:
    for name in ("aardvark", "backup", "zoo"):
        (project / f"{name}.py").write_text("")

    assert "has these: shop, aardvark, backup, zoo." in headrace("check", "shp.app:till").err


def test_a_path_in_the_place_of_a_module_of_events_is_answered_with_its_name(
    headrace: Headrace,
) -> None:
    ended = headrace("schemas", "export", "shop/app.py", "--to", "out")

    assert ended.code == 2
    assert "write shop.app." in ended.err


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
