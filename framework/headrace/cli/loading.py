"""From `services.order.app:order` to the service."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules, walk_packages
from types import ModuleType
from typing import Annotated, TypeAlias

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


def load_services(names: Sequence[str]) -> list[Service]:
    """The services that are named, each once; raises `ConfigurationError` with what there is."""
    return list(dict.fromkeys(_load_service(name) for name in names))


def load_module(name: str) -> ModuleType:
    """Import a module of the project in the working directory. Raises `ConfigurationError`
    when there is none or it fails; definition errors come through as they are."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except HeadraceError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error
        raise ConfigurationError(f"There is no module {name!r}. {_nearby(name)}") from error
    except Exception as error:
        raise _broken(name, error) from error


def load_package(name: str) -> ModuleType:
    """Import a module and, if it is a package, everything in it."""
    module = load_module(name)
    for found in walk_packages(getattr(module, "__path__", ()), f"{name}."):
        if not found.name.endswith(".__main__"):
            load_module(found.name)
    return module


def _load_service(name: str) -> Service:
    module_name, _, attribute = name.partition(":")
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
    return f"{name!r} is of the type {type(found).__name__}, not a Service."


def _what_is_in(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Service))
    if not names:
        return f"{module.__name__} has no services."
    return f"{module.__name__} has these services: {', '.join(names)}."


def _nearby(name: str) -> str:
    parent, package = _nearest_package(name)
    names = sorted(_modules(package))
    if package is not None:
        return f"{parent} has these modules: {', '.join(names) or 'none'}."
    return (
        f"{os.getcwd()} has these: {', '.join(names) or 'none'}. Start headrace in the directory "
        "that the first part of the name is in."
    )


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
        f"{name} could not be imported ({type(error).__name__}: {error}). `headrace --traceback …` "
        "shows where."
    )
