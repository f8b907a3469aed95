"""What stands in an account beside what the code wants: every difference, as a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from headrace.aws.standing import Standing, Unseen

from .check import Finding, Severity
from .difference import BY_HAND, GONE, MISSING, Difference
from .drift_resources import differences
from .drift_stacks import of_mappings, of_stacks
from .model import Topology


def drift(
    wanted: Topology,
    standing: Standing,
    *,
    stack: str,
    declared: Standing | None = None,
    relayed: Set[str] = frozenset(),
) -> list[Finding]:
    """Every difference, errors first; empty if there is none.

    `stack` is the stack that has these resources, `declared` what its template says, if that is
    known: by it a change that somebody made by hand is told from one that is not deployed.
    `relayed` are the tables that a relay watches. What was not read is a warning, and never taken
    for fine.
    """
    deployable = differences(wanted, declared, relayed) if declared is not None else ()
    advice = _Advice(stack, declared, {(each.subject, each.aspect) for each in deployable})
    found = [
        *(advice.finding(each) for each in differences(wanted, standing, relayed)),
        *(advice.finding(each) for each in of_stacks(wanted, standing, stack)),
        *(advice.finding(each) for each in of_mappings(standing)),
        *_unseen(standing.unseen),
    ]
    return sorted(dict.fromkeys(found), key=lambda f: (f.severity, f.subject, f.sentence))


@dataclass(frozen=True, slots=True)
class _Advice:
    """What to do about a difference."""

    stack: str
    declared: Standing | None
    deployable: set[tuple[str, str]]

    def finding(self, found: Difference) -> Finding:
        sentence = f"{found.sentence}. {self._of(found)}" if found.aspect else found.sentence
        return Finding(found.severity, found.subject, sentence)

    def _of(self, found: Difference) -> str:
        deploy = f"Deploy again: cdk deploy {self.stack}"
        closed = {each.subject for each in self.declared.unseen} if self.declared else set()
        if self.declared is None or found.subject in closed:
            return f"{deploy}. If that changes nothing, {BY_HAND}"
        if self.deployable & {(found.subject, found.aspect), (found.subject, MISSING)}:
            return f"{deploy}."
        if found.aspect == MISSING:
            return f"The template of {self.stack} has it, so {GONE}"
        return f"The template of {self.stack} has it right, so {BY_HAND}"


def _unseen(unseen: Iterable[Unseen]) -> Iterator[Finding]:
    for each in unseen:
        yield Finding(
            Severity.WARNING, each.subject, f"not looked at: {each.what}, because {each.why}"
        )
