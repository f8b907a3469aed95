"""What stands is compared with what is wanted, and each difference is one sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from headrace.aws.standing import (
    OFF,
    Gate,
    StackItem,
    Standing,
    StandingIndex,
    StandingMapping,
    StandingQueue,
    StandingRule,
    StandingTable,
    StandingTarget,
    Unseen,
)
from headrace.topology.drift import drift
from headrace.topology.model import Bus, Queue, Rule, Table, Topology

PATTERN: Final = {"source": ["mill.wheel"], "detail-type": ["WaterRose"]}
MINUTE: Final = timedelta(minutes=1)
STACK: Final = "works-messaging"
OWN: Final = frozenset({("works", "mill")})

MILL: Final = Topology(
    buses=(Bus("works"),),
    rules=(Rule("mill", "works", PATTERN, "mill", "mill-dlq"),),
    queues=(
        Queue("mill", MINUTE, timedelta(days=4), False, "mill-dlq", 10),
        Queue("mill-dlq", MINUTE, timedelta(days=14)),
    ),
    tables=(Table("mill", indexes=("relay",)),),
)


def as_wanted(wanted: Topology = MILL) -> Standing:
    """What stands where everything is as it should be."""
    return Standing(
        namespace="dev",
        buses=tuple(bus.name for bus in wanted.buses),
        rules=tuple(map(_rule, wanted.rules)),
        queues=tuple(_queue(queue, wanted) for queue in wanted.queues),
        tables=tuple(map(_table, wanted.tables)),
    )


def _rule(rule: Rule) -> StandingRule:
    target = StandingTarget(rule.queue, rule.undelivered)
    return StandingRule(rule.name, rule.bus, rule.pattern, True, (target,))


def _queue(queue: Queue, wanted: Topology) -> StandingQueue:
    rules = frozenset((rule.bus, rule.name) for rule in wanted.rules_to(queue.name))
    return StandingQueue(
        name=queue.name,
        visibility=queue.visibility,
        retention=queue.retention,
        delay=timedelta(0),
        fifo=queue.fifo,
        dead_letters=queue.dead_letters,
        max_receive_count=queue.max_receive_count,
        deduplicates=queue.fifo,
        high_throughput=queue.fifo,
        encrypted=True,
        gate=Gate(rules, tls_only=True),
    )


def _table(table: Table) -> StandingTable:
    return StandingTable(
        name=table.name,
        keys={"pk": "S HASH", "sk": "S RANGE"},
        on_demand=True,
        protected=True,
        stream="NEW_IMAGE",
        indexes=tuple(map(_index, table.indexes)),
        ttl_attribute=table.ttl_attribute,
        recovery=True,
    )


def _index(name: str) -> StandingIndex:
    keys = {f"{name}_pk": "S HASH", f"{name}_sk": "S RANGE"}
    return StandingIndex(name, keys, "KEYS_ONLY", "ACTIVE")


def told(standing: Standing, wanted: Topology = MILL, **options: Any) -> list[str]:
    return [str(each) for each in drift(wanted, standing, stack=STACK, **options)]


def changed(kind: str, **changes: Any) -> Standing:
    """The first of a kind is otherwise than wanted."""
    first, *others = getattr(as_wanted(), kind)
    first_changed: dict[str, Any] = {kind: (replace(first, **changes), *others)}
    return replace(as_wanted(), **first_changed)


def test_what_stands_as_it_is_wanted_is_nothing_to_talk_about() -> None:
    assert told(as_wanted(), relayed={"mill"}) == []


# --- sentences -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("standing", "sentence"),
    [
        (
            replace(as_wanted(), buses=()),
            "error: bus dev-works: does not exist, so nothing can be published on it.",
        ),
        (
            replace(as_wanted(), rules=()),
            "error: rule dev-mill: does not exist, so dev-mill gets nothing by it.",
        ),
        (replace(as_wanted(), tables=()), "error: table dev-mill: does not exist."),
        (
            changed("queues", dead_letters="elsewhere"),
            "error: queue dev-mill: moves dead letters to dev-elsewhere, and the code wants "
            "dev-mill-dlq.",
        ),
        (
            changed("queues", encrypted=False),
            "warning: queue dev-mill: does not encrypt what is in it.",
        ),
        (
            changed(
                "queues", gate=Gate(frozenset({("works", "mill"), ("works", "old")}), (), (), True)
            ),
            "warning: queue dev-mill: lets the rule dev-old on the bus dev-works send to it, which "
            "the code does not.",
        ),
        (
            changed(
                "queues",
                gate=Gate(
                    frozenset({("works", "mill")}), (), ("everyone: sqs:DeleteMessage",), True
                ),
            ),
            "warning: queue dev-mill: has a policy that keeps some out (everyone: "
            "sqs:DeleteMessage).",
        ),
        (
            changed("rules", pattern={"source": [{"prefix": "mill"}]}),
            'error: rule dev-mill: matches {"source": [{"prefix": "mill"}]}, and the code wants '
            '{"detail-type": ["WaterRose"], "source": ["mill.wheel"]}.',
        ),
        (
            changed("rules", targets=()),
            "error: rule dev-mill: does not send to dev-mill, which gets nothing by it.",
        ),
        (
            changed("rules", targets=(StandingTarget("mill", "arn:aws:sqs:eu-west-1:1:other"),)),
            "error: rule dev-mill: puts what it cannot deliver into arn:aws:sqs:eu-west-1:1:other, "
            "and the code wants dev-mill-dlq.",
        ),
        (
            changed("tables", keys={"id": "S HASH"}),
            'error: table dev-mill: has the keys {"id": "S HASH"}, and the code needs {"pk": '
            '"S HASH", "sk": "S RANGE"}, which DynamoDB cannot change: give the service another.',
        ),
        (
            changed("tables", on_demand=False),
            "warning: table dev-mill: has provisioned capacity, and the code wants on demand.",
        ),
        (
            changed("tables", ttl_attribute="gone_at"),
            "error: table dev-mill: lets items expire by gone_at, and the code wants expires_at.",
        ),
        (
            changed("tables", indexes=(_index("relay"), _index("old"))),
            "warning: table dev-mill: has an index old, which the code does not need.",
        ),
        (
            changed("tables", indexes=(replace(_index("relay"), status="CREATING"),)),
            "warning: table dev-mill: has an index relay that is CREATING: wait until it is "
            "ACTIVE.",
        ),
        (
            changed("tables", indexes=(replace(_index("relay"), projection="ALL"),)),
            "warning: table dev-mill: copies ALL into its index relay, and the code wants "
            "KEYS_ONLY, which costs less.",
        ),
        (
            changed("tables", indexes=(replace(_index("relay"), keys={"a": "S HASH"}),)),
            'error: table dev-mill: has an index relay that has the keys {"a": "S HASH"}',
        ),
        (
            replace(as_wanted(), statuses={STACK: "UPDATE_ROLLBACK_COMPLETE"}),
            "warning: stack works-messaging: is UPDATE_ROLLBACK_COMPLETE: what is there may be of "
            "two deployments.",
        ),
        (
            replace(as_wanted(), unseen=(Unseen("queue dev-mill", "its policy", "who knows."),)),
            "warning: queue dev-mill: not looked at: its policy, because who knows.",
        ),
    ],
    ids=lambda value: "" if isinstance(value, Standing) else value[:60],
)
def test_a_difference_is_told_in_one_sentence(standing: Standing, sentence: str) -> None:
    (said,) = told(standing)
    assert said.startswith(sentence)


def test_a_dead_letter_queue_moves_nothing_on() -> None:
    first, letters = as_wanted().queues
    on = replace(letters, dead_letters="mill", max_receive_count=3)
    (said,) = told(replace(as_wanted(), queues=(first, on)))
    assert "moves what is received 3 times to dev-mill, and the code wants that nowhere" in said


def test_the_order_of_alternatives_in_a_pattern_means_nothing() -> None:
    rule = replace(MILL.rules[0], pattern={"source": ["b", "a"], "detail-type": ["X", "Y"]})
    wanted = replace(MILL, rules=(rule,))
    standing = changed("rules", pattern={"detail-type": ["Y", "X"], "source": ["a", "b"]})
    assert told(standing, wanted) == []


def test_errors_come_before_warnings() -> None:
    mill = replace(as_wanted().queues[0], visibility=timedelta(0), delay=MINUTE)
    said = told(replace(as_wanted(), queues=(mill, as_wanted().queues[1])))
    assert [each.partition(":")[0] for each in said] == ["error", "warning"]


@pytest.mark.parametrize("stream", [OFF, "KEYS_ONLY"])
def test_a_stream_is_only_missed_by_a_relay(stream: str) -> None:
    without = changed("tables", stream=stream)
    assert told(without) == []
    assert "only the sweep of the relay" in told(without, relayed={"mill"})[0]


# --- what was not read ---------------------------------------------------------------------


def test_what_may_not_be_looked_at_is_not_missing() -> None:
    hidden = (
        Unseen("queue dev-mill", "it", "no."),
        Unseen("bus dev-works", "its rules", "no."),
        Unseen("table dev-mill", "it", "no."),
    )
    standing = Standing(namespace="dev", queues=as_wanted().queues[1:], unseen=hidden)
    assert [each.partition("dev-")[0] for each in told(standing)] == [
        "warning: bus ",
        "warning: queue ",
        "warning: table ",
    ]


@pytest.mark.parametrize(
    "standing",
    [changed("tables", ttl_attribute=None, recovery=None), changed("rules", targets=None)],
    ids=["a table", "a rule"],
)
def test_a_part_that_was_not_told_is_not_a_difference(standing: Standing) -> None:
    assert told(standing) == []


# --- what to do ----------------------------------------------------------------------------

SHORT: Final = changed("queues", visibility=timedelta(seconds=7))


def test_a_template_that_is_right_shows_that_somebody_changed_it_by_hand() -> None:
    (said,) = told(SHORT, declared=as_wanted())
    assert said.endswith(
        "The template of works-messaging has it right, so somebody changed it by hand: change it "
        "back (to deploy the same template again does nothing)."
    )


def test_a_template_that_is_not_comes_right_with_a_deployment() -> None:
    (said,) = told(SHORT, declared=SHORT)
    assert said.endswith("and the code wants 60 s. Deploy again: cdk deploy works-messaging.")


def test_what_is_not_in_the_template_comes_with_a_deployment() -> None:
    without = replace(as_wanted(), queues=as_wanted().queues[1:])
    (said,) = told(without, declared=without)
    assert said == (
        "error: queue dev-mill: does not exist. Deploy again: cdk deploy works-messaging."
    )


def test_what_is_in_the_template_and_not_there_was_deleted() -> None:
    without = replace(as_wanted(), queues=as_wanted().queues[1:])
    (said,) = told(without, declared=as_wanted())
    assert "has it, so somebody deleted it" in said


@pytest.mark.parametrize(
    "declared",
    [None, replace(as_wanted(), unseen=(Unseen("queue dev-mill", "it", "a condition."),))],
    ids=["no template", "a template that cannot be worked out"],
)
def test_without_a_template_both_are_possible(declared: Standing | None) -> None:
    (said,) = told(SHORT, declared=declared)
    assert "Deploy again: cdk deploy works-messaging. If that changes nothing, somebody" in said


# --- stacks --------------------------------------------------------------------------------


def items(*without: str) -> tuple[StackItem, ...]:
    every = {
        "bus dev-works": "works",
        "queue dev-mill": "mill",
        "queue dev-mill-dlq": "mill-dlq",
        "rule dev-mill": "mill",
        "table dev-mill": "mill",
    }
    return tuple(
        StackItem(STACK, called.split(" ")[0], called.split(" ")[1], name)
        for called, name in every.items()
        if called not in without
    )


def test_a_stack_with_all_of_it_is_nothing_to_talk_about() -> None:
    assert told(replace(as_wanted(), stack=items())) == []


def test_what_exists_outside_of_the_stack_is_in_the_way_of_its_next_deployment() -> None:
    (said,) = told(replace(as_wanted(), stack=items("queue dev-mill")))
    assert said.startswith(
        "warning: queue dev-mill: exists, but not in the stack works-messaging, whose next "
        "deployment would find the name taken"
    )


@pytest.mark.parametrize(("kind", "stays"), [("queue", True), ("table", True), ("rule", False)])
def test_what_the_stack_still_has_is_told_and_whether_it_stays(kind: str, stays: bool) -> None:
    old = StackItem(STACK, kind, "dev-old", "old")
    (said,) = told(replace(as_wanted(), stack=(*items(), old)))
    assert f"{kind} dev-old: the stack works-messaging still has it, and the code does not" in said
    assert ("stays until it is deleted" in said) is stays


def test_what_nobody_has_is_told_once() -> None:
    beside = (("queue", "dev-old"),)
    (said,) = told(replace(as_wanted(), stack=items(), beside=beside))
    assert "queue dev-old: begins as this namespace does, and neither the code nor" in said

    old = StackItem(STACK, "queue", "dev-old", "old")
    (said,) = told(replace(as_wanted(), stack=(*items(), old), beside=beside))
    assert "still has it, and the code does not" in said


# --- mappings ------------------------------------------------------------------------------

MAPPING: Final = StandingMapping(
    id="1b9d",
    source="mill",
    function="dev-mill:live",
    enabled=True,
    partial=True,
    batch=10,
    window=timedelta(0),
    max_concurrency=None,
    function_timeout=timedelta(seconds=10),
    declared={"BatchSize": 10},
)


def with_mapping(**changes: Any) -> Standing:
    return replace(as_wanted(), mappings=(replace(MAPPING, **changes),), stack=items())


def test_a_mapping_as_its_stack_has_it_is_nothing_to_talk_about() -> None:
    assert told(with_mapping()) == []


def test_the_window_of_a_mapping_counts_for_the_visibility() -> None:
    (said,) = told(with_mapping(window=timedelta(seconds=5), declared=_window(5)))
    assert "want a visibility of 65 s, and the queue has 60 s" in said


def _window(seconds: int) -> dict[str, Any]:
    return {"BatchSize": 10, "MaximumBatchingWindowInSeconds": seconds}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"batch": 3}, "BatchSize of 3, and the template of its stack says 10"),
        ({"window": timedelta(seconds=0), "declared": _window(5)}, "InSeconds of none"),
        (
            {"max_concurrency": 2},
            "MaximumConcurrency of 2, and the template of its stack says none",
        ),
    ],
)
def test_what_the_code_says_nothing_of_is_compared_with_the_template(
    changes: dict[str, Any], name: str
) -> None:
    (said,) = told(with_mapping(**changes))
    assert name in said
    assert "somebody changed it by hand" in said


def test_a_mapping_of_nobody_takes_messages_away() -> None:
    (said,) = told(with_mapping(declared=None))
    assert "is in none of the stacks that were looked at" in said


@pytest.mark.parametrize(
    "hidden",
    [
        {"stack": None},
        {"unseen": (Unseen("stack works-mill-lambda", "what is in it", "no."),)},
    ],
    ids=["no stack", "a stack that was not read"],
)
def test_a_mapping_is_nobodys_only_if_all_stacks_were_read(hidden: dict[str, Any]) -> None:
    said = told(replace(with_mapping(declared=None), **hidden))
    assert [each for each in said if "none of the stacks" in each] == []


def test_a_mapping_of_a_stream_has_no_visibility_to_keep() -> None:
    arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/dev-mill/stream/2026-11-22T00:00:00.000"
    timeout = timedelta(minutes=15)
    assert told(with_mapping(source=arn, function_timeout=timeout)) == []

    (said,) = told(with_mapping(source=arn, partial=False))
    assert said.startswith("error: mapping of table/dev-mill/stream/2026-11-22T00:00:00.000 to")
