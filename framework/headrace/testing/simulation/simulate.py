"""Running services through many seeds, and saying what went wrong in one of them."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any, Final, TypeAlias

from headrace.errors import ConfigurationError
from headrace.events import Command, Event, Message
from headrace.service import Service
from headrace.testing.letters import Letter
from headrace.testing.simulation.faults import Faults
from headrace.testing.simulation.plan import (
    Invariant,
    Plan,
    ResourcesOf,
    Rollout,
    Run,
    Scenario,
    Setting,
)
from headrace.testing.simulation.progress import Progress, told
from headrace.testing.simulation.report import Report
from headrace.testing.simulation.run import run
from headrace.testing.simulation.shrink import shrunk
from headrace.testing.simulation.timeline import as_page, as_text
from headrace.testing.simulation.world import World

Seeds: TypeAlias = int | Sequence[int]
"""How many, counted from 0, or which."""

SEEDS: Final = 100
"""Runs of a simulation that nobody has said more about."""

PAGES: Final = Path(".headrace")
"""Where the pages of failed runs are written, in the current folder."""

_COLLECT_EVERY: Final = 25


class Violation(AssertionError):
    """Something that must always hold did not.

    `seed` makes it happen again; `run` is the smallest run in which it did, and `page` the file
    that shows it. `report` says what was gone through until then.
    """

    def __init__(
        self, message: str, seed: int, run: Run, page: Path | None, report: Report
    ) -> None:
        super().__init__(message)
        self.seed = seed
        self.run = run
        self.page = page
        self.report = report


def simulate(
    services: Service | Rollout | Sequence[Service | Rollout],
    scenario: Scenario | Sequence[Message],
    invariants: Sequence[Invariant] = (),
    *,
    always: Sequence[Invariant] = (),
    seeds: Seeds | None = None,
    faults: Faults | None = None,
    resources: Mapping[Service, ResourcesOf] | None = None,
    expected_letter: Callable[[Letter], bool] | None = None,
    workers: int = 2,
    pages: Path | None = PAGES,
    progress: Progress | None = None,
) -> Report:
    """Run services on a simulated AWS, once for each seed, and see that the invariants hold.

    `scenario` sends what the services are to handle: a coroutine function that is given a
    `World`, or a list of messages. Once everything is settled, each of `invariants` looks at the
    world and raises `AssertionError` if something is not as it must be; it may be a coroutine
    function. Those of `always` are asked after every write, and may not wait.

    Without being asked it is an invariant that everything comes to rest; that no event takes
    effect twice in a handler; that a worker does not end; and that dead-letter queues hold what
    nobody can read, all of it and nothing else (`expected_letter` says which others may be there).

    `resources` are opened in place of a service's own, with the `World` as their argument.
    `workers` is the number of processes for each service.

    Raises `Violation` for the first seed under which something does not hold, with the smallest
    run that shows it as a timeline, which is also written to `pages` as an HTML page.
    """
    if isinstance(services, Service | Rollout):
        services = (services,)
    if not services:
        raise ConfigurationError("A simulation without a service says nothing: name at least one.")
    setting = Setting(
        services=tuple(services),
        scenario=scenario if callable(scenario) else _sending(scenario),
        invariants=tuple(invariants),
        always=tuple(always),
        faults=faults or Faults(),
        resources=_by_name(services, resources or {}),
        expected_letter=expected_letter or (lambda letter: False),
        workers=workers,
    )
    return _through(setting, _numbers(seeds), pages, progress or told(_name(scenario)))


def simulation(
    *services: Service | Rollout, **options: Any
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """A pytest test that is a scenario:

        @simulation(order, inventory, faults=Faults(crash=0.02))
        async def test_stock_adds_up(aws: World) -> None:
            await aws.publish(OrderPlaced(…))
            await aws.settled()
            assert …

    It runs once for each seed: `seeds=50`, the marker `headrace(seeds=50)` or, before both,
    `--headrace-seeds 50` say how many; `--headrace-seed 4711` runs one again. What it asserts is
    its invariant. Options are those of `simulate`; further parameters are pytest's fixtures and
    parameters. It has the marker `headrace`.
    """

    seeds_given = options.pop("seeds", None)
    # A misspelt option is better heard of here than in each run.
    signature(simulate).bind(services, None, **options)

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        import pytest

        @wraps(test)
        def seeded(*own: Any, headrace_seeds: Seeds, **fixtures: Any) -> None:
            async def scenario(aws: World) -> None:
                await test(*own, aws, **fixtures)

            scenario.__name__ = test.__name__
            __tracebackhide__ = True
            simulate(services, scenario, seeds=headrace_seeds, **options)

        seeded.__signature__ = _asked_of_pytest(test)  # type: ignore[attr-defined]  # it is one
        del seeded.__wrapped__  # pytest must not look behind it
        given = {} if seeds_given is None else {"seeds": seeds_given}
        marked: Callable[..., None] = pytest.mark.headrace(**given)(seeded)
        return marked

    return decorate


def _asked_of_pytest(test: Callable[..., Any]) -> Signature:
    """The parameters of a test without its world, and with its seeds."""
    own = signature(test)
    asked = list(own.parameters.values())
    of_class = asked[:1] if asked and asked[0].name == "self" else []
    fixtures = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in asked[len(of_class) + 1 :]]
    seeds = Parameter("headrace_seeds", Parameter.KEYWORD_ONLY)
    return own.replace(parameters=[*of_class, seeds, *fixtures], return_annotation=None)


def _through(
    setting: Setting, seeds: Sequence[int], pages: Path | None, progress: Progress
) -> Report:
    __tracebackhide__ = True
    report, began = Report(), monotonic()
    with _alone(), progress(len(seeds)) as advance, _collected() as collect:
        for number, seed in enumerate(seeds):
            found = _run(setting, seed)
            report.seeds += 1
            report.seconds = monotonic() - began
            report.virtual_seconds += found.seconds
            report.faults.update(fault.kind for fault in found.struck)
            if found.wrong is not None:
                raise _violation(setting, found, pages, report)
            if number == 0:
                _refuse_unrepeatable(found, _run(setting, seed))
            advance(report)
            collect()
    return report


def _run(setting: Setting, seed: int) -> Run:
    try:
        return run(setting, Plan(seed))
    except Exception as error:
        error.add_note(f"This was seed {seed} of a simulation.")
        raise


@contextmanager
def _alone() -> Iterator[None]:
    """A run has the logging, the garbage collector and `random` of the process for itself."""
    if not _at_work.acquire(blocking=False):
        raise ConfigurationError(
            "Another simulation is at work in another thread of this process: run them one after "
            "the other, or in processes of their own (pytest -n auto)."
        )
    try:
        yield
    finally:
        _at_work.release()


_at_work: Final = RLock()


def _refuse_unrepeatable(one: Run, other: Run) -> None:
    if (one.struck, one.seconds, one.wrong) != (other.struck, other.seconds, other.wrong):
        raise ConfigurationError(
            f"Seed {one.plan.seed} did not give the same run twice: {_UNREPEATABLE}"
        )


_UNREPEATABLE: Final = (
    "the services take time or chance from somewhere else than the event loop and their "
    "transactions (datetime.now, uuid4, a thread), or keep something in a global variable."
)


def _violation(setting: Setting, failed: Run, pages: Path | None, report: Report) -> Violation:
    """What to raise for a run that went wrong: its smallest form, as a story."""
    seed, wrong = failed.plan.seed, failed.wrong
    again = run(setting, failed.plan)
    if wrong is None or again.struck != failed.struck or not _is_as_wrong(again, failed):
        raise _unrepeated(failed)
    smaller, complete = _smaller(setting, failed)
    smallest = run(setting, smaller.plan, traced=True)
    if smallest.wrong is None or not _is_as_wrong(smallest, failed):
        raise _unrepeated(failed)
    wrong = smallest.wrong
    page = None if pages is None else _written(pages, setting, smallest)
    needed = f"{'' if complete else 'at most '}{len(smallest.struck)} of them needed"
    lines = [
        f"{wrong.name}: {wrong.sentence}",
        "",
        f"Seed {seed} ({len(failed.struck)} faults, {needed}). Run it again with "
        f"--headrace-seed {seed}, or simulate(…, seeds=[{seed}]).",
        *([] if page is None else [f"As a page: {page}"]),
        "",
        as_text(smallest),
    ]
    violation = Violation("\n".join(lines), seed, smallest, page, report)
    violation.__cause__ = wrong.error
    return violation


def _unrepeated(failed: Run) -> ConfigurationError:
    said = "" if failed.wrong is None else f" ({failed.wrong.sentence})"
    return ConfigurationError(
        f"Seed {failed.plan.seed} went wrong{said}, and did not a second time: {_UNREPEATABLE}"
    )


def _smaller(setting: Setting, failed: Run) -> tuple[Run, bool]:
    """The smallest run, unless nobody wants it, and whether there is no smaller one."""
    if failed.wrong is None or not failed.wrong.shrinks:
        return failed, False
    try:
        from headrace_pytest import shrinks
    except ModuleNotFoundError:  # pytest is not there
        return shrunk(setting, failed)
    return shrunk(setting, failed) if shrinks() else (failed, False)


def _is_as_wrong(one: Run, other: Run) -> bool:
    return one.wrong is not None and other.wrong is not None and one.wrong.kind == other.wrong.kind


def _written(pages: Path, setting: Setting, smallest: Run) -> Path:

    name = getattr(setting.scenario, "__name__", "scenario")
    path = pages / f"{name}-{smallest.plan.seed}.html"
    pages.mkdir(parents=True, exist_ok=True)
    if pages == PAGES and not (pages / ".gitignore").exists():
        # The folder is nobody's source.
        (pages / ".gitignore").write_text("*\n")
    path.write_text(as_page(smallest, name), encoding="utf-8")
    return path


@contextmanager
def _collected() -> Iterator[Callable[[], None]]:
    """Garbage is collected between runs, by hand: within one it would decide when what."""
    runs = 0

    def collect() -> None:
        nonlocal runs
        runs += 1
        if runs % _COLLECT_EVERY == 0:
            gc.collect()

    gc.collect()
    gc.freeze()
    try:
        yield collect
    finally:
        gc.unfreeze()


def _numbers(seeds: Seeds | None) -> Sequence[int]:
    if seeds is None:
        seeds = _asked_for()
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    if not numbers:
        raise ConfigurationError("A simulation without a seed says nothing: give at least one.")
    return numbers


def _asked_for() -> Seeds:
    """What the command line of pytest asks for, if that is where this runs."""
    try:
        from headrace_pytest import asked_for
    except ModuleNotFoundError:  # pytest is not there
        return SEEDS
    found: Seeds | None = asked_for()
    return SEEDS if found is None else found


def _sending(messages: Sequence[Message]) -> Scenario:
    async def scenario(aws: World) -> None:
        for message in messages:
            if isinstance(message, Event):
                await aws.publish(message)
            elif isinstance(message, Command):
                await aws.send(message)

    return scenario


def _by_name(
    services: Sequence[Service | Rollout], resources: Mapping[Service, ResourcesOf]
) -> dict[str, ResourcesOf]:
    names = {(s.before if isinstance(s, Rollout) else s).name for s in services}
    for service in resources:
        if service.name not in names:
            raise ConfigurationError(
                f"There are resources for {service.name!r}, which is not among the services."
            )
    return {service.name: opened for service, opened in resources.items()}


def _name(scenario: object) -> str:
    return str(getattr(scenario, "__name__", "simulation"))
