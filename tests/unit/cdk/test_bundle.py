"""A bundle for Lambda, built by the real pip from wheels made here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from headrace.cdk.bundle import Bundle, bundle
from headrace.cdk.imports import program
from headrace.cdk.locks import read_locks
from headrace.cdk.packages import NotInstalled
from headrace.cdk.runtimes import Runtime, here
from headrace.errors import ConfigurationError
from tests.unit.cdk.wheels import ANY, ARM, SHOP, Contents, botocore, wheel, write

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "framework" / "headrace"
HANDLER = "shop.stock.lambda_handler"


@dataclass(frozen=True, slots=True)
class Yard:
    """Where bundles are built, with the default lock and sources of the tests."""

    folder: Path

    def bundle(self, name: str = "stock.zip", **changes: Any) -> Bundle:
        options = {
            "machine": "arm64",
            "lock": self.folder / "lock.txt",
            "sources": [self.folder / "sources"],
            "cache": self.folder / "cache",
            **changes,
        }
        return bundle([HANDLER], self.folder / name, **options)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """With pip confined to wheels that are there: for arm64, and for any machine."""
    folder = tmp_path_factory.mktemp("yard")
    wheels = folder / "wheels"
    wheels.mkdir()
    quick: Contents = {
        "quick/__init__.py": "",
        "quick/fast.so": b"\x7fELF",
        "quick/fast.pyx": "",
        "x.pyi": "",
    }
    tiny = {"tiny.py": "", "tiny_tests/tests/test_tiny.py": "", "tiny-stubs/__init__.pyi": ""}
    lock = (
        wheel(wheels, "quick", ARM, quick)
        + wheel(wheels, "tiny", ANY, tiny)
        + wheel(wheels, "botocore", ANY, botocore())
    )
    write(folder, {"lock.txt": lock})
    write(folder / "sources", SHOP)
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            environment.delenv(name)
        environment.setenv("PIP_CONFIG_FILE", os.devnull)
        environment.setenv("PIP_NO_INDEX", "1")
        environment.setenv("PIP_FIND_LINKS", str(wheels))
        yield Yard(folder)


@pytest.fixture(scope="module")
def built(yard: Yard) -> Bundle:
    return yard.bundle()


def names(built: Bundle) -> set[str]:
    with ZipFile(built.path) as archive:
        return {name for name in archive.namelist() if not name.endswith(".pyc")}


def content(built: Bundle, name: str) -> Any:
    with ZipFile(built.path) as archive:
        return json.loads(archive.read(name))


# --- what is in it -------------------------------------------------------------------------------


def test_a_bundle_has_the_modules_that_a_service_may_import_and_its_data(built: Bundle) -> None:
    own = {name for name in names(built) if name.startswith("shop/")}
    assert own == {
        "shop/__init__.py",
        "shop/contracts.py",
        "shop/stock/__init__.py",
        "shop/stock/lambda_handler.py",
        "shop/stock/rare.py",
        "shop/stock/shelf.py",
        "shop/stock/sizes.json",
    }


def test_a_module_that_no_import_names_can_be_asked_for(yard: Yard) -> None:
    built = yard.bundle("more.zip", more_modules=["shop.stock.unused"])
    assert "shop/stock/unused.py" in names(built)


def test_packages_are_wheels_for_lambda_without_what_does_not_run(built: Bundle) -> None:
    packages = {name for name in names(built) if not name.startswith(("shop", "botocore"))}
    assert packages == {
        "quick/__init__.py",
        "quick/fast.so",
        "quick-1.0.dist-info/METADATA",
        "tiny.py",
        "tiny-1.0.dist-info/METADATA",
    }


def test_models_are_those_that_headrace_calls_without_prose(built: Bundle) -> None:
    models = {name.split("/")[2] for name in names(built) if name.endswith("service-2.json")}
    assert models == {"dynamodb", "events", "scheduler", "sqs", "sso", "sso-oidc", "sts"}
    assert not any("examples" in name for name in names(built))
    model = content(built, "botocore/data/sso/2012/service-2.json")
    assert "documentation" not in model
    assert model["shapes"]["Page"]["members"] == {"documentation": {"shape": "String"}}


def test_endpoints_are_those_of_the_models(built: Bundle) -> None:
    (partition,) = content(built, "botocore/data/endpoints.json")["partitions"]
    assert set(partition["services"]) == {
        *("dynamodb", "events", "oidc", "portal.sso", "scheduler", "sqs", "sts")
    }


def test_a_model_that_a_service_needs_is_named(yard: Yard) -> None:
    built = yard.bundle("s3.zip", models=["s3"])
    assert "botocore/data/s3/2012/service-2.json" in names(built)
    (partition,) = content(built, "botocore/data/endpoints.json")["partitions"]
    assert "s3" in partition["services"]


def test_everything_is_compiled_for_the_python_that_will_run_it(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"PYTHON{here().replace('.', '')}", sys.executable)
    (yard.folder / "pure.txt").write_text(_line(yard, "tiny"))
    (yard.folder / "sources" / "lone.py").write_text("import tiny\nanswer = 41 + 1\n")
    built = bundle(
        ["lone"],
        yard.folder / "lone.zip",
        python=here(),
        lock=yard.folder / "pure.txt",
        sources=[yard.folder / "sources"],
        cache=yard.folder / "cache",
    )
    assert built.compiled
    with ZipFile(built.path) as archive:
        archive.extractall(yard.folder / "lone")
    (yard.folder / "lone" / "lone.py").write_text("answer = 'compiled again'\n")
    program = "import lone, tiny; print(lone.answer, lone.__cached__, tiny.__cached__)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"PYTHONPATH": str(yard.folder / "lone"), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=yard.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    said, *cached = done.stdout.split()
    assert said == "42"
    assert all(Path(each).is_file() for each in cached)


def test_without_an_interpreter_of_that_version_nothing_is_compiled(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PYTHON313", str(yard.folder / "nothing"))
    built = yard.bundle("sources.zip")
    assert not built.compiled
    assert "There is no Python 3.13 here to compile a bundle" in caplog.text
    with ZipFile(built.path) as archive:
        assert not any(name.endswith(".pyc") for name in archive.namelist())


# --- the same again ------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_file(yard: Yard, built: Bundle) -> None:
    again = yard.bundle("again.zip", cache=yard.folder / "another")
    assert again.path.read_bytes() == built.path.read_bytes()
    assert again.digest == built.digest


def test_packages_are_fetched_once(
    yard: Yard, built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(yard.folder / "nowhere"))
    assert yard.bundle("cached.zip").digest == built.digest


def test_a_change_of_a_module_changes_the_digest(yard: Yard, built: Bundle) -> None:
    changed = yard.folder / "changed"
    write(changed, {**SHOP, "shop/contracts.py": "class Sold: returned = False\n"})
    assert yard.bundle("changed.zip", sources=[changed]).digest != built.digest


def test_a_change_of_another_service_does_not_change_the_digest(yard: Yard, built: Bundle) -> None:
    changed = yard.folder / "elsewhere"
    write(changed, {**SHOP, "shop/mail/letters.py": "class Letter: stamped = True\n"})
    assert yard.bundle("elsewhere.zip", sources=[changed]).digest == built.digest


def test_a_bundle_says_what_it_comes_to(built: Bundle) -> None:
    with ZipFile(built.path) as archive:
        assert built.files == len(archive.infolist())
        assert built.unzipped_bytes == sum(each.file_size for each in archive.infolist())
    assert built.zipped_bytes == built.path.stat().st_size
    assert "shop.stock.rare" in built.modules


# --- what cannot be done -------------------------------------------------------------------------


def _line(yard: Yard, name: str) -> str:
    lock = (yard.folder / "lock.txt").read_text()
    return next(line for line in lock.splitlines() if line.startswith(f"{name}=="))


def test_a_package_without_a_wheel_for_the_machine_is_named(yard: Yard) -> None:
    with pytest.raises(NotInstalled, match=r"no wheel of quick==1\.0 for Python 3\.13 on x86_64"):
        yard.bundle(machine="x86_64")


def test_a_file_that_is_not_what_was_locked_is_refused(yard: Yard) -> None:
    lock = yard.folder / "forged.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(NotInstalled, match="not what was locked"):
        yard.bundle(lock=lock)


def test_a_lock_that_is_not_there_is_named(yard: Yard) -> None:
    with pytest.raises(ConfigurationError, match=r"no lock .*absent\.txt: compile one"):
        yard.bundle(lock=yard.folder / "absent.txt")


def test_a_package_that_a_service_imports_and_no_lock_has_is_named(yard: Yard) -> None:
    lock = yard.folder / "little.txt"
    lock.write_text(_line(yard, "tiny"))
    with pytest.raises(ConfigurationError, match=r"shop\.stock\.lambda_handler imports quick"):
        yard.bundle(lock=lock)


def test_a_model_that_botocore_does_not_have_is_named(yard: Yard) -> None:
    with pytest.raises(ConfigurationError, match=r"no model of 's4'\. There are dynamodb"):
        yard.bundle(models=["s4"])


def test_an_entry_point_that_is_not_there_is_named(yard: Yard) -> None:
    with pytest.raises(ConfigurationError, match=r"Did you mean shop\.stock\.lambda_handler"):
        program(["shop.stock.lambda_handle"], [yard.folder / "sources"], LIBRARY)


def test_an_import_of_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"shop/__init__.py": "", "shop/app.py": "import shop.shelf\n"})
    with pytest.raises(ConfigurationError, match=r"shop\.app imports shop\.shelf, which is not"):
        program(["shop.app"], [tmp_path], LIBRARY)


# --- imports -------------------------------------------------------------------------------------


def test_what_is_imported_by_a_name_in_quotes_is_found(tmp_path: Path) -> None:
    app = "from importlib import import_module\ndef late(): return import_module('shop.shelf')\n"
    write(tmp_path, {"shop/app.py": app, "shop/shelf.py": ""})
    assert set(program(["shop.app"], [tmp_path], LIBRARY).modules) == {"shop.app", "shop.shelf"}


def test_a_package_that_is_imported_in_a_function_may_be_missing(tmp_path: Path) -> None:
    app = "import at_once\ntry: import perhaps\nexcept ImportError: pass\ndef f(): import late\n"
    write(tmp_path, {"app.py": app})
    assert program(["app"], [tmp_path], LIBRARY).foreign == {"at_once": "app"}


@pytest.mark.parametrize("service", ["order", "inventory", "notification"])
def test_a_bundle_of_a_sample_service_has_nothing_of_the_others(service: str) -> None:
    found = program([f"services.{service}.lambda_handler"], [ROOT], LIBRARY)
    parts = [name.split(".") for name in found.modules]
    assert {part[1] for part in parts if part[0] == "services" and len(part) > 1} == {service}
    assert {part[0] for part in parts} == {"headrace", "schemas", "services"}
    assert not {"cdk", "cli", "cost", "dlq", "testing"} & {
        part[1] for part in parts if part[0] == "headrace" and len(part) > 1
    }


def test_every_module_of_a_bundle_runs_without_those_left_out(tmp_path: Path) -> None:
    found = program(
        ["services.order.lambda_handler", "services.order.relay_lambda_handler"], [ROOT], LIBRARY
    )
    for name, path in found.modules.items():
        folder = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        write(tmp_path, {"/".join([*folder, path.name]): path.read_bytes()})
    imports = "".join(f"import {name}\n" for name in found.modules)
    said = "import headrace\nprint(headrace.__file__)\n"
    done = subprocess.run(
        [sys.executable, "-c", imports + said],
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


# --- locks ---------------------------------------------------------------------------------------

HASH = f"--hash=sha256:{'a' * 64}"


def test_a_lock_is_read_for_the_machine_of_the_bundle(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# made by hand\n"
        f"Both_Of.them==1.0 ; sys_platform == 'linux' \\\n    {HASH}\n    # via shop\n"
        f"graviton==2.0 ; platform_machine == 'aarch64' {HASH}\n"
        f"windows==3.0 ; sys_platform == 'win32' {HASH}\n"
        f"old==4.0 ; python_full_version < '3.12' {HASH}\n"
    )
    assert read_locks([lock], Runtime("3.13", "arm64").markers()).splitlines() == [
        f"both-of-them==1.0 {HASH}",
        f"graviton==2.0 {HASH}",
    ]


def test_locks_that_disagree_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text(f"tiny==1.0 {HASH}\n")
    other.write_text(f"tiny==1.1 {HASH}\n")
    with pytest.raises(ConfigurationError, match=r"has tiny 1\.1, and another lock has 1\.0"):
        read_locks([one, other], None)


@pytest.mark.parametrize("line", ["tiny==1.0", f"tiny>=1.0 {HASH}", "-r other.txt"])
def test_a_lock_without_versions_or_hashes_is_refused(tmp_path: Path, line: str) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"{line}\n")
    with pytest.raises(ConfigurationError, match="not a lock with hashes"):
        read_locks([lock], None)


def test_wheels_for_an_older_python_are_for_an_older_c_library() -> None:
    newest = {python: Runtime(python, "arm64").pip_options()[5] for python in ("3.11", "3.13")}
    assert newest == {"3.11": "manylinux_2_26_aarch64", "3.13": "manylinux_2_34_aarch64"}
