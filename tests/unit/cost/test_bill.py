"""The bill, against figures that were worked by hand."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from headrace.cost.bill import Assumed, Bill, Line, bill
from headrace.cost.hosts import Host
from headrace.cost.measure import Measured, Sweep
from headrace.cost.prices import load_prices
from headrace.cost.usage import Action, Invocation, QueueKind, Request, Usage
from headrace.errors import ConfigurationError

PRICES = load_prices().prices


def measured(
    host: Host,
    usage: Usage,
    *,
    units: int = 10,
    sweeps: dict[str, Sweep] | None = None,
    **more: Any,
) -> Measured:
    return Measured(
        host=host,
        units=units,
        usage={"shop": usage},
        queues={"shop": ("shop",)},
        sweeps=sweeps or {},
        **more,
    )


def billed(usage: Usage, assumed: Assumed | None = None, **more: Any) -> Bill:
    """The same counts on both hosts."""
    on_lambda, on_fargate = (measured(host, usage, **more) for host in Host)
    return bill(on_lambda, on_fargate, assumed or Assumed(), PRICES)


def line(found: Bill, label: str) -> Line:
    (one,) = [each for each in found.lines if each.label == label]
    return one


def idle(found: Bill, label: str) -> Line:
    (one,) = [each for each in found.idle if each.label == label]
    return one


def test_twenty_sends_for_ten_units_are_eighty_cents_for_a_million() -> None:
    usage = Usage(requests=Counter({Request(Action.SEND, QueueKind.STANDARD): 20}))
    found = line(billed(usage), "SQS sends")
    # 2 for each unit, so 2 M requests at $0.40/M.
    assert found.dollars(Host.LAMBDA, 1e6) == pytest.approx(0.80)
    assert found.dollars(Host.FARGATE, 1e6) == pytest.approx(0.80)


def test_fifo_and_fair_queues_have_lines_of_their_own_at_fifty_cents() -> None:
    requests = {Request(Action.RECEIVE, kind): 10 for kind in QueueKind}
    found = billed(Usage(requests=Counter(requests)))
    labels = ("SQS receives", "SQS receives, fair queues", "SQS receives, FIFO")
    costs = [line(found, label).dollars(Host.LAMBDA, 1e6) for label in labels]
    assert costs == pytest.approx([0.40, 0.50, 0.50])


@pytest.mark.parametrize(
    ("label", "usage", "dollars"),
    [
        ("EventBridge events", Usage(events=30), 3.00),
        ("Scheduler, schedules that fire", Usage(schedules=5), 0.50),
        ("DynamoDB writes", Usage(write_units=90), 9 * 0.625),
        ("DynamoDB index writes", Usage(index_units=20), 2 * 0.625),
        ("DynamoDB reads", Usage(read_units=25.0), 2.5 * 0.125),
    ],
)
def test_each_unit_has_its_price(label: str, usage: Usage, dollars: float) -> None:
    assert line(billed(usage), label).dollars(Host.FARGATE, 1e6) == pytest.approx(dollars)


def test_a_function_is_billed_by_the_millisecond_for_its_wait_and_its_work() -> None:
    # 512 MB are 512/1769 of a vCPU: 5 ms of one are 17.275 ms.
    assumed = Assumed(ms_per_message=5, memory=512)
    assert assumed.billed_ms(Invocation(4, 0.024)) == 94  # 24 + 69.1, rounded up
    assert assumed.billed_ms(Invocation(0, 0.024)) == 24


def test_more_memory_than_for_one_vcpu_does_not_make_one_process_faster() -> None:
    assert Assumed(ms_per_message=5, memory=3_538).billed_ms(Invocation(2, 0.0)) == 10


def test_lambda_costs_its_requests_and_its_gigabyte_seconds() -> None:
    usage = Usage(received=40, invocations=[Invocation(4, 0.024)] * 10)
    found = billed(usage, Assumed(ms_per_message=5, memory=512))
    requests, duration = line(found, "Lambda requests"), line(found, "Lambda duration")
    assert requests.dollars(Host.LAMBDA, 1e6) == pytest.approx(0.20)
    # 94 ms of half a GB, a million times: 47,000 GB-s.
    assert duration.dollars(Host.LAMBDA, 1e6) == pytest.approx(47_000 * 0.0000133334)
    assert requests.on_fargate is None
    assert requests.dollars(Host.FARGATE, 1e6) == 0


def test_a_record_that_is_left_to_the_relay_is_an_invocation_by_the_stream() -> None:
    found = billed(Usage(relayed=10))
    assert line(found, "Lambda requests").on_lambda == 1
    assert line(found, "Lambda requests").on_fargate is None


def test_tasks_are_paid_for_as_long_as_they_take_and_as_busy_as_they_are() -> None:
    usage = Usage(received=100)
    assumed = Assumed(ms_per_message=9, vcpu=0.5, task_memory=1, utilisation=0.5)
    found = billed(usage, assumed)
    # 10 messages a unit, 90 ms of a vCPU: 180 ms of half of one, 360 ms at half of their time.
    # A million units are 100 hours of tasks: 50 vCPU-h and 100 GB-h.
    vcpu, memory = line(found, "Fargate vCPU"), line(found, "Fargate memory")
    assert vcpu.dollars(Host.FARGATE, 1e6) == pytest.approx(50 * 0.03238)
    assert memory.dollars(Host.FARGATE, 1e6) == pytest.approx(100 * 0.00356)
    assert vcpu.on_lambda is None


def test_a_process_uses_no_more_than_one_of_the_vcpus_of_its_task() -> None:
    one, two = Assumed(vcpu=1, task_memory=4), Assumed(vcpu=2, task_memory=4)
    assert one.task_hours(1000) == two.task_hours(1000)


def test_lambda_logs_three_lines_more_for_each_invocation() -> None:
    usage = Usage(invocations=[Invocation(1, 0.0)] * 20)
    found = line(billed(usage, Assumed(bytes_per_line=100), log_lines=10), "Logs")
    # 1 line of a unit, and 2 × 3 of Lambda: 100 and 700 bytes.
    assert found.dollars(Host.FARGATE, 1e6) == pytest.approx(0.1 * 0.50)
    assert found.dollars(Host.LAMBDA, 1e6) == pytest.approx(0.7 * 0.50)


def test_a_month_of_empty_receives_is_131_400_for_each_poll() -> None:
    found = idle(billed(Usage(), Assumed(pollers=5, tasks=2)), "SQS empty receives")
    # 730 hours of 180 polls of 20 s.
    assert (found.on_lambda, found.on_fargate) == (5 * 131_400, 2 * 131_400)
    assert found.dollars(Host.LAMBDA) == pytest.approx(0.2628)


def test_idle_tasks_cost_730_hours_and_functions_nothing() -> None:
    found = billed(Usage(), Assumed(vcpu=0.5, task_memory=1, tasks=2))
    vcpu, memory = idle(found, "Fargate vCPU"), idle(found, "Fargate memory")
    assert vcpu.dollars(Host.FARGATE) == pytest.approx(730 * 0.03238)
    assert memory.dollars(Host.FARGATE) == pytest.approx(1460 * 0.00356)
    assert found.idle_month(Host.LAMBDA) == pytest.approx(0.2628)


def test_the_relay_looks_by_a_schedule_or_in_each_task() -> None:
    assumed = Assumed(ms_per_message=0, memory=1024, relay_every=timedelta(minutes=1), tasks=1)
    found = billed(Usage(), assumed, sweeps={"shop": Sweep(read_units=4.0, seconds=0.064)})
    reads = idle(found, "DynamoDB reads of the relay")
    # 43,800 minutes, or 131,400 times 20 s; half a unit for each of 8 shards.
    assert (reads.on_lambda, reads.on_fargate) == (43_800 * 4, 131_400 * 4)
    assert idle(found, "Lambda requests of the relay").on_lambda == 43_800
    duration = idle(found, "Lambda duration of the relay").on_lambda
    assert duration == pytest.approx(43_800 * 0.064)


def test_without_services_that_publish_by_themselves_there_is_no_relay() -> None:
    assert not any("relay" in each.label for each in billed(Usage()).idle)


def test_endpoints_have_a_line_if_there_are_some() -> None:
    found = idle(billed(Usage(), Assumed(vpc_endpoints=14)), "VPC endpoints")
    assert found.dollars(Host.FARGATE) == pytest.approx(14 * 7.30)
    assert not any("VPC" in each.label for each in billed(Usage()).idle)


def test_a_month_pays_for_the_tasks_beyond_those_that_are_there_anyway() -> None:
    usage = Usage(received=100)
    assumed = Assumed(ms_per_message=9, vcpu=0.5, task_memory=1, utilisation=0.5, tasks=1)
    found = billed(usage, assumed)
    each = 0.5 * 0.03238 + 0.00356
    # A million units are 100 of the 730 hours, ten million 1,000.
    others = 0.40 * 0.1314  # its polls
    assert found.month(Host.FARGATE, 1e6) == pytest.approx(730 * each + others)
    assert found.month(Host.FARGATE, 1e7) == pytest.approx(1000 * each + others)


def test_a_month_of_lambda_is_its_idle_cost_and_its_work() -> None:
    found = billed(Usage(events=10), Assumed(pollers=5))
    assert found.month(Host.LAMBDA, 2e6) == pytest.approx(2.00 + 0.2628)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"utilisation": 0.0}, "more than 0 and at most 1"),
        ({"vcpu": 3.0}, "not 3"),
        ({"vcpu": 0.25, "task_memory": 4.0}, "0.5, 1, 2 GB, not 4"),
        ({"memory": 64}, "128 to 10,240"),
        ({"tasks": -1}, "from 0 up"),
        ({"ms_per_message": float("nan")}, "0 to 900,000"),
    ],
)
def test_what_aws_does_not_sell_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Assumed(**wrong)
