"""From `services.order.app:order` to the service."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages
from traceback import walk_tb
from types import ModuleType
from typing import Annotated, Final, TypeAlias

import typer

from headrace.errors import ConfigurationError, HeadraceError
from headrace.service import Service

Services: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE:SERVICE...",
        help="Where each service is, as in services.order.app:order.",
        show_default=False,
    ),
]
"""The argument of every command that works on services."""


class NoModule(ConfigurationError):
    """There is no module of this name."""


def load_services(names: Sequence[str]) -> list[Service]:
    """The services that are named, each once; raises `ConfigurationError` with what there is."""
    return list(dict.fromkeys(_load_service(name) for name in names))


def load_module(name: str) -> ModuleType:
    """Import a module of the project in the working directory. Raises `ConfigurationError`
    when there is none or it fails; definition errors come through as they are."""
    _refuse_path(name)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except HeadraceError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error
        raise NoModule(f"There is no module {name!r}. {_nearby(name)}") from error
    except Exception as error:
        raise _broken(name, error) from error


def load_package(name: str) -> ModuleType:
    """Import a module and, if it is a package, everything in it."""
    module = load_module(name)
    for found in walk_packages(getattr(module, "__path__", ()), f"{name}."):
        if not found.name.endswith(".__main__"):
            load_module(found.name)
    return module


def services_in(names: Sequence[str]) -> list[Service]:
    """The services in modules that are loaded, and in those of packages, each once."""
    modules = [
        module
        for loaded, module in list(sys.modules.items())
        if any(f"{loaded}.".startswith(f"{name}.") for name in names)
    ]
    found = (value for module in modules for value in vars(module).values())
    return list(dict.fromkeys(value for value in found if isinstance(value, Service)))


def _load_service(name: str) -> Service:
    module_name, colon, attribute = name.strip().partition(":")
    if not module_name:
        raise ConfigurationError(
            f"{name!r} names no module: write module:service, as in services.order.app:order."
        )
    _refuse_path(module_name, f"{colon}{attribute}")
    module = load_module(module_name)
    found = getattr(module, attribute, None) if attribute else None
    if isinstance(found, Service):
        return found
    raise ConfigurationError(f"{_complaint(name, attribute, found)} {_what_is_in(module)}")


def _complaint(name: str, attribute: str, found: object) -> str:
    if not attribute:
        return f"{name!r} does not say which service: write module:service."
    if found is None:
        return f"{name!r} names nothing."
    if isinstance(found, type):
        return f"{name!r} is the class {found.__name__}, not a Service."
    return f"{name!r} is of the type {type(found).__name__}, not a Service."


def _what_is_in(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Service))
    if not names:
        return f"{module.__name__} has no services."
    return f"{module.__name__} has these services: {', '.join(names)}."


def _refuse_path(module: str, rest: str = "") -> None:
    """Raises `ConfigurationError` for the path of a file in the place of a module's name."""
    if not module.endswith(".py") and not module.startswith(".") and not set(module) & {"/", "\\"}:
        return
    path = module.replace("\\", "/").removeprefix("./").removeprefix(".").rstrip("/")
    named = path.removesuffix(".py").replace("/", ".")
    what = f"{f'{module}{rest}'!r} is a path, and not the name of a module"
    if all(part.isidentifier() for part in named.split(".")):
        raise ConfigurationError(f"{what}: write {named}{rest}.")
    raise ConfigurationError(
        f"{what}: write its name as Python imports it from the directory that headrace is started "
        "in, as in services.order.app."
    )


def _nearby(name: str) -> str:
    parent, package = _nearest_package(name)
    missing = name.removeprefix(f"{parent}.").partition(".")[0]
    names = _nearest_first(missing, sorted(_modules(package)))
    if package is not None:
        return f"{parent} has these modules: {', '.join(names) or 'none'}."
    return (
        f"{os.getcwd()} has these: {', '.join(names) or 'none'}. Start headrace in the directory "
        "that the first part of the name is in."
    )


def _nearest_first(name: str, names: list[str]) -> list[str]:
    close = get_close_matches(name, names)
    return [*close, *(other for other in names if other not in close)]


def _nearest_package(name: str) -> tuple[str, ModuleType | None]:
    while name := name.rpartition(".")[0]:
        try:
            return name, import_module(name)
        except ModuleNotFoundError:
            continue
    return "", None


def _modules(package: ModuleType | None) -> Iterator[str]:
    path = [os.getcwd()] if package is None else getattr(package, "__path__", [])
    return (module.name for module in iter_modules(path) if not module.name.startswith("_"))


def _broken(name: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{name} could not be imported ({type(error).__name__}: {error}){_place_of(error)}. "
        "`headrace --traceback …` shows more."
    )


def _place_of(error: Exception) -> str:
    """The innermost line of the user's own code that led there, relative to where we are."""
    if isinstance(error, SyntaxError) and error.filename:
        return f", at {_relative(error.filename)}:{error.lineno}"
    frames = [(f.f_code.co_filename, line) for f, line in walk_tb(error.__traceback__)]
    own = [(file, line) for file, line in frames if not file.startswith(_NOT_THE_USERS)]
    return f", at {_relative(own[-1][0])}:{own[-1][1]}" if own else ""


def _relative(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


_NOT_THE_USERS: Final = (
    "<",
    str(Path(__file__).parents[1]),
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
"""How the files begin that are Python's, installed, or headrace's own."""
