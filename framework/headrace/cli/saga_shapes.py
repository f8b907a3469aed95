"""`headrace saga explore` and `headrace saga graph`: what a saga can come to, before it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from headrace.errors import ConfigurationError

from .graph import Format, FormatOption, OutputOption, format_of, hand_out
from .loading import Services, load_services

if TYPE_CHECKING:
    from headrace.saga.definition import Definition
    from headrace.saga.explore import Exploration, Problem

SagaOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only this saga; by default all of them.")
]

SHOWN: Final = 5
"""Problems of one saga that are shown, unless all are wanted."""

_SLOW: Final = 3.0
"""Seconds after which a walk says where it is, and then again."""


def add_explore(commands: typer.Typer) -> None:
    """Make `explore` one of these commands."""
    commands.command()(explore)


def add_graph(commands: typer.Typer) -> None:
    """Make `graph` one of these commands."""
    commands.command()(graph)


def explore(
    services: Services,
    saga: SagaOption = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="States of a saga after which the walk is cut."),
    ] = None,
    all_problems: Annotated[
        bool, typer.Option("--all-problems", help=f"Not only the {SHOWN} with the shortest paths.")
    ] = False,
) -> None:
    """Walk through all that can become of sagas.

    That is every order of answers, failures and timeouts. Shows what goes wrong with the path that
    leads there, and exits with 1 if anything does. The last line counts the states, the transitions
    and the problems of all sagas.
    """
    from headrace.saga.explore import LIMIT
    from headrace.saga.explore import explore as walk

    walks = []
    for name, definition in _definitions(services, saga):
        found = walk(definition, limit=limit or LIMIT, progress=_Ticker(name))
        _show(name, found, len(found.problems) if all_problems else SHOWN)
        walks.append(found)
    problems = sum(len(found.problems) for found in walks)
    states, transitions = sum(w.states for w in walks), sum(w.transitions for w in walks)
    print(f"states={states} transitions={transitions} problems={problems}")
    if problems:
        raise typer.Exit(1)


def graph(
    services: Services,
    saga: SagaOption = None,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Draw the steps of a saga, what undoes them, and how it ends.

    Without --saga the services must have one saga; of several versions the newest is drawn.
    """
    from headrace.saga import graph as drawing

    draw = drawing.svg if (form or format_of(output)) is Format.SVG else drawing.mermaid
    drawn = draw(_the_one(_definitions(services, saga)))
    hand_out(drawn, output)


def _definitions(names: Sequence[str], saga: str | None) -> list[tuple[str, Definition]]:
    """All versions of all sagas, or of the one that is meant, each with its full name. Raises
    `ConfigurationError` if there is none."""
    from headrace.saga.handling import sagas_of

    owners = [owner for s in load_services(names) for owner in sagas_of(s).values()]
    meant = [owner for owner in owners if saga in (None, owner.name, owner.consumer)]
    if not meant:
        there = ", ".join(owner.consumer for owner in owners) or "none"
        what = "no saga" if saga is None else f"no saga {saga!r}"
        raise ConfigurationError(f"There is {what} in {', '.join(names)}: these are: {there}.")
    return [
        (f"{owner.consumer} version {number}", owner.versions[number])
        for owner in meant
        for number in sorted(owner.versions)
    ]


def _the_one(found: Sequence[tuple[str, Definition]]) -> Definition:
    names = dict.fromkeys(definition.name for _, definition in found)
    if len(names) > 1:
        raise ConfigurationError(
            f"There are the sagas {', '.join(names)}: say with --saga which of them to draw."
        )
    return found[-1][1]


def _show(name: str, found: Exploration, shown: int) -> None:
    print(f"{name}: {found.summary()}")
    for note in found.notes:
        print(f"  note: {note}")
    for problem in found.problems[:shown]:
        _show_problem(problem)
    left = len(found.problems) - shown
    if left > 0:
        print(f"  and {left} more: see them with --all-problems")


def _show_problem(problem: Problem) -> None:
    print(f"  problem: {problem.what}")
    for number, sentence in enumerate(problem.path, start=1):
        print(f"    {number:>2}. {sentence}")


class _Ticker:
    """Says how far a walk is, once it is slow."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = monotonic() + _SLOW

    def __call__(self, states: int, waiting: int) -> None:
        if monotonic() < self._next:
            return
        self._next = monotonic() + _SLOW
        line = f"{self._name}: {states} states so far, {waiting} of them to be walked on from"
        print(line, file=sys.stderr, flush=True)
