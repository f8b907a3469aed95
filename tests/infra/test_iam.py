"""What handlers do on AWS against what their roles allow: all of it, and nothing else."""

from __future__ import annotations

import pytest

from headrace.service import Service
from headrace.topology.access import Host
from services.simulation.shop import SERVICES
from tests.infra.excused import excused
from tests.infra.playing import Needs
from tests.infra.policies import Statement
from tests.infra.shop import ENDS, shop
from tests.infra.small import SMALL, small_services
from tests.infra.stacks import PLACE, policy_of, require_cdk


@pytest.fixture(autouse=True, scope="module")
def _cdk() -> None:
    require_cdk()


@pytest.fixture(params=list(Host))
def host(request: pytest.FixtureRequest) -> Host:
    played: Host = request.param
    return played


@pytest.fixture(params=[*SERVICES, *SMALL], ids=lambda service: service.name)
def service(request: pytest.FixtureRequest) -> Service:
    played: Service = request.param
    return played


@pytest.fixture
def needs(service: Service, host: Host) -> Needs:
    return shop(host)[0] if service in SERVICES else small_services(host)


def test_the_shop_has_gone_every_way_that_an_order_can_go(host: Host) -> None:
    _, seen = shop(host)
    handlers = {handler.consumer for each in SERVICES for handler in each.handlers}
    # What comes over HTTP is recorded under the name of its service.
    assert seen.consumers == {*handlers, "order"}
    assert set(seen.orders) >= ENDS
    assert seen.reservations["forgotten released"] > 0
    assert all(seen.letters[each.name] for each in SERVICES)


def test_all_that_its_handlers_do_is_allowed(service: Service, host: Host, needs: Needs) -> None:
    policy = policy_of(service, host)
    calls = needs.calls[service.name]
    assert calls
    denied = [call for call in sorted(calls) if not policy.allows(call.action, PLACE.arn_of(call))]
    assert denied == []


def test_nothing_is_granted_that_is_never_used(service: Service, host: Host, needs: Needs) -> None:
    reasons = excused(service, host)
    used = [(call.action, PLACE.arn_of(call)) for call in needs.calls[service.name]]
    listed = [(call.action, PLACE.arn_of(call)) for call in reasons]
    unused = [
        Statement(True, (action,), (arn,))
        for action, arn in policy_of(service, host).grants
        if not any(Statement(True, (action,), (arn,)).matches(*call) for call in used)
    ]
    unlisted = [each for each in unused if not any(each.matches(*call) for call in listed)]
    assert unlisted == []
    needless = [call for call in listed if not any(each.matches(*call) for each in unused)]
    assert needless == []


def test_the_role_of_one_host_has_no_more_than_the_other_but_for_its_poller(
    service: Service,
) -> None:
    on_lambda, on_worker = (set(policy_of(service, each).grants) for each in Host)
    assert on_worker <= on_lambda
    polled = {action for action, _ in on_lambda - on_worker}
    stream = {call.action for call in excused(service, Host.LAMBDA) if "Stream" in call.action}
    assert polled - {"dynamodb:GetRecords", "dynamodb:GetShardIterator"} == {
        *stream,
        "sqs:GetQueueAttributes",
    }
