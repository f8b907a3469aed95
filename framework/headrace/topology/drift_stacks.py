"""What stacks have beside what is wanted, and what they make of queues on Lambda."""

from __future__ import annotations

from collections.abc import Iterator, Set

from headrace.aws.config import AwsConfig
from headrace.aws.standing import StackItem, Standing, StandingMapping, StandingQueue

from .check import VISIBILITY_PER_TIMEOUT
from .difference import BY_HAND, Difference, error, seconds, warning
from .model import Topology

# --- stacks ----------------------------------------------------------------------------


def of_stacks(wanted: Topology, standing: Standing, stack: str) -> Iterator[Difference]:
    for name, status in (standing.statuses or {}).items():
        yield warning(
            f"stack {name}",
            "",
            f"is {status}: what is there may be of two deployments. Look at its events, and deploy "
            "again.",
        )
    items = standing.stack
    named = set(_named(wanted, standing.namespace))
    for item in items or ():
        if item.kind != "mapping" and (item.kind, item.physical) not in named:
            yield _left_over(item)
    held = {(item.kind, item.physical) for item in items or ()}
    for kind, physical in standing.beside:
        if (kind, physical) not in held:
            yield warning(
                f"{kind} {physical}",
                "",
                "begins as this namespace does, and neither the code nor the stack has it: name "
                "its service too, if it is one of yours. It may belong to another namespace.",
            )
    if items is not None:
        yield from _not_in_stack(standing, held, stack)


def _named(wanted: Topology, namespace: str) -> Iterator[tuple[str, str]]:
    names = AwsConfig(namespace=namespace)
    yield from (("bus", names.physical_bus(bus.name)) for bus in wanted.buses)
    yield from (("rule", names.physical(rule.name)) for rule in wanted.rules)
    yield from (("queue", names.physical(queue.name)) for queue in wanted.queues)
    yield from (("table", names.physical(table.name)) for table in wanted.tables)


def _left_over(item: StackItem) -> Difference:
    stays = item.kind in ("queue", "table")
    then = f" Deployed without it, the {item.kind} stays until it is deleted." if stays else ""
    return warning(
        f"{item.kind} {item.physical}",
        "",
        f"the stack {item.stack} still has it, and the code does not: name its service too, or "
        f"deploy again (cdk deploy {item.stack}).{then}",
    )


def _not_in_stack(
    standing: Standing, held: Set[tuple[str, str]], stack: str
) -> Iterator[Difference]:
    names = AwsConfig(namespace=standing.namespace)
    stands = [
        *(("bus", names.physical_bus(bus)) for bus in standing.buses),
        *(("rule", names.physical(rule.name)) for rule in standing.rules),
        *(("queue", names.physical(queue.name)) for queue in standing.queues),
        *(("table", names.physical(table.name)) for table in standing.tables),
    ]
    for kind, physical in stands:
        if (kind, physical) not in held:
            yield warning(
                f"{kind} {physical}",
                "",
                f"exists, but not in the stack {stack}, whose next deployment would find the name "
                "taken: import it into the stack, or delete it before.",
            )


# --- mappings --------------------------------------------------------------------------


def of_mappings(standing: Standing) -> Iterator[Difference]:
    names = AwsConfig(namespace=standing.namespace)
    queues = {queue.name: queue for queue in standing.queues}
    all_stacks = standing.stack is not None and not any(
        each.subject.startswith("stack ") for each in standing.unseen
    )
    for found in standing.mappings:
        subject = f"mapping of {_source(found, names)} to {found.function}"
        if found.declared is None and all_stacks:
            yield warning(
                subject,
                "",
                "is in none of the stacks that were looked at: if it is not meant, delete it, as "
                "it takes messages away from the service.",
            )
        yield from _mapping(subject, found, queues.get(found.source))


def _mapping(
    subject: str, found: StandingMapping, queue: StandingQueue | None
) -> Iterator[Difference]:
    if not found.partial:
        yield error(
            subject,
            "",
            "does not report which messages of a batch failed, so Lambda deletes those with the "
            "others: set FunctionResponseTypes to [ReportBatchItemFailures].",
        )
    if not found.enabled:
        yield warning(
            subject, "", "is disabled: enable it, unless another host has the queue meanwhile."
        )
    if queue is not None and found.function_timeout is not None:
        least = VISIBILITY_PER_TIMEOUT * found.function_timeout + found.window
        if queue.visibility < least:
            yield error(
                subject,
                "",
                f"has a function with a timeout of {seconds(found.function_timeout)} and a window "
                f"of {seconds(found.window)}, which want a visibility of {seconds(least)}, and "
                f"the queue has {seconds(queue.visibility)}: lower the timeout, or raise the "
                "visibility with queues=QueueSettings(…).",
            )
    yield from _by_hand(subject, found)


def _by_hand(subject: str, found: StandingMapping) -> Iterator[Difference]:
    """What is other than in the template of its stack: the code says nothing of these."""
    said = found.declared
    if not said:
        return
    scaling = said.get("ScalingConfig", {})
    for name, have, declared in (
        ("BatchSize", found.batch, said.get("BatchSize", found.batch)),
        (
            "MaximumBatchingWindowInSeconds",
            int(found.window.total_seconds()),
            said.get("MaximumBatchingWindowInSeconds", 0),
        ),
        ("MaximumConcurrency", found.max_concurrency, scaling.get("MaximumConcurrency")),
    ):
        if isinstance(declared, (int, type(None))) and have != declared:
            yield warning(
                subject,
                "",
                f"has a {name} of {have or 'none'}, and the template of its stack says "
                f"{declared or 'none'}, so {BY_HAND}",
            )


def _source(found: StandingMapping, names: AwsConfig) -> str:
    if found.source.startswith("arn:"):
        return found.source.split(":", 5)[5]
    return names.physical(found.source)
