"""What stands in an account is read, and every difference from the code is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, cast
from uuid import uuid4

import pytest
import pytest_asyncio
from aiohttp import web

from headrace.aws.client import Clients
from headrace.aws.config import AwsConfig
from headrace.aws.deployed import Look, looking, stacks_beside
from headrace.errors import ConfigurationError, NotProvisioned, Unreachable
from headrace.topology.drift import drift
from headrace.topology.model import Queue, Topology
from tests.integration.aws.stacks import FARM, PATTERN, barn_function, config_at, farm, form

pytestmark = [pytest.mark.emulator, pytest.mark.asyncio(loop_scope="module")]

NOT_TOLD: Final = (
    "not looked at: whether its index relay is active, because DynamoDB does not tell."
)
"""By ministack, of an index that its CloudFormation made."""


@dataclass(frozen=True, slots=True)
class Farm:
    """A stack that stands as its template says, and clients to change something."""

    config: AwsConfig
    clients: Clients
    functions: Any
    look: Look
    last: list[str] = field(default_factory=list)
    """What was told before the last change."""

    @property
    def stack(self) -> str:
        return f"{self.config.namespace}-messaging"

    def called(self, name: str) -> str:
        return self.config.physical(name)

    async def told(self, wanted: Topology = FARM, look: Look | None = None) -> list[str]:
        """The findings, without the namespace."""
        beside = stacks_beside(self.stack, ["barn", "cart"])
        found = await (look or self.look).deployed(wanted, stack=self.stack, beside=beside)
        findings = drift(
            wanted,
            found.standing,
            stack=self.stack,
            declared=found.declared,
            relayed={"barn"},
        )
        said = [str(each).replace(f"{self.config.namespace}-", "") for each in findings]
        return [each for each in said if not each.endswith(NOT_TOLD)]

    async def url(self, queue: str) -> str:
        there = await self.clients.sqs.get_queue_url(QueueName=self.called(queue))
        return there["QueueUrl"]

    async def set(self, queue: str, **attributes: str) -> None:
        url, given = await self.url(queue), cast(Any, attributes)
        await self.clients.sqs.set_queue_attributes(QueueUrl=url, Attributes=given)

    async def policy(self, queue: str) -> dict[str, Any]:
        answer = await self.clients.sqs.get_queue_attributes(
            QueueUrl=await self.url(queue), AttributeNames=["Policy"]
        )
        policy: dict[str, Any] = json.loads(answer["Attributes"]["Policy"])
        return policy

    async def put_target(self, rule: str, **changes: Any) -> None:
        """Change the target of a rule; what is `None` is taken away."""
        named: Any = {"Rule": self.called(rule), "EventBusName": self.called("farm")}
        (target,) = (await self.clients.events.list_targets_by_rule(**named))["Targets"]
        whole = {**target, **changes}
        kept: Any = {name: value for name, value in whole.items() if value is not None}
        await self.clients.events.put_targets(**named, Targets=[kept])

    async def mapping(self) -> dict[str, Any]:
        listed = await self.functions.list_event_source_mappings(FunctionName=self.called("barn"))
        (found,) = listed["EventSourceMappings"]
        return dict(found)

    async def feed(self, **changes: Any) -> None:
        found = await self.mapping()
        await self.functions.update_event_source_mapping(UUID=found["UUID"], **changes)


@asynccontextmanager
async def standing_farm(endpoint: str) -> AsyncIterator[Farm]:
    config = config_at(endpoint, f"farm{uuid4().hex[:8]}")
    namespace = config.namespace
    await form(config, f"{namespace}-messaging", farm(namespace))
    await form(config, f"{namespace}-barn-lambda", barn_function(namespace))
    async with looking(config) as look:
        table: Any = config.physical("barn")
        # Both stand in the template, and the CloudFormation of ministack ignores them.
        await look.clients.dynamodb.update_time_to_live(
            TableName=table,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"},
        )
        await look.clients.dynamodb.update_continuous_backups(
            TableName=table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        yield Farm(config, look.clients, look.functions, look)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stands(ministack_url: str) -> AsyncIterator[Farm]:
    """One that nobody changes."""
    async with standing_farm(ministack_url) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def changed(ministack_url: str) -> AsyncIterator[Farm]:
    """One that is changed more and more."""
    async with standing_farm(ministack_url) as found:
        yield found


async def test_nothing_is_told_of_a_stack_that_somebody_wrote_as_the_code_wants_it(
    stands: Farm,
) -> None:
    assert await stands.told() == []


# --- one change at a time ------------------------------------------------------------------

Change = Callable[[Farm], Awaitable[object]]
CHANGES: Final[dict[str, tuple[Change, str]]] = {}


def change(sentence: str) -> Callable[[Change], Change]:
    """What somebody does by hand, and what is told of it."""

    def noted(made: Change) -> Change:
        CHANGES[made.__name__] = (made, sentence)
        return made

    return noted


@change("error: mapping of barn to barn: has a function with a timeout of 30 s and a window of 0 s")
async def a_function_is_given_more_time(stands: Farm) -> None:
    await stands.functions.update_function_configuration(
        FunctionName=stands.called("barn"), Timeout=30
    )


@change("error: queue barn: hides a message for 7 s, and the code wants 60 s.")
async def the_visibility_is_lowered(stands: Farm) -> None:
    await stands.set("barn", VisibilityTimeout="7")
    # Of a function that runs for 10 s, another sentence would tell as well.
    await stands.functions.update_function_configuration(
        FunctionName=stands.called("barn"), Timeout=1
    )


@change("error: queue barn-dlq: keeps messages for 60 s, and the code wants 14 days.")
async def the_retention_is_lowered(stands: Farm) -> None:
    await stands.set("barn-dlq", MessageRetentionPeriod="60")


@change("error: queue barn: moves a message to barn-dlq after 3 receives, and the code wants 10.")
async def the_receive_count_is_lowered(stands: Farm) -> None:
    arn = f"arn:aws:sqs:us-east-1:000000000000:{stands.called('barn-dlq')}"
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    await stands.set("barn", RedrivePolicy=redrive)


@change("error: queue barn: has no redrive policy, so what kills its consumer comes again until")
async def the_redrive_policy_is_taken_away(stands: Farm) -> None:
    await stands.set("barn", RedrivePolicy="")


@change("warning: queue barn: holds every message back for 9 s at first.")
async def messages_are_delayed(stands: Farm) -> None:
    await stands.set("barn", DelaySeconds="9")


@change("error: queue barn: has a policy that lets others in (everyone: sqs:SendMessage).")
async def the_policy_is_widened(stands: Farm) -> None:
    policy = await stands.policy("barn")
    policy["Statement"].append({"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage"})
    await stands.set("barn", Policy=json.dumps(policy))


@change("error: queue barn: does not let the rule barn on the bus farm send to it, so what")
async def the_rule_is_taken_from_the_policy(stands: Farm) -> None:
    policy = await stands.policy("barn")
    policy["Statement"] = [each for each in policy["Statement"] if each["Effect"] == "Deny"]
    await stands.set("barn", Policy=json.dumps(policy))


@change("error: queue barn: may be called without TLS.")
async def the_tls_statement_is_taken_away(stands: Farm) -> None:
    policy = await stands.policy("barn")
    policy["Statement"] = [each for each in policy["Statement"] if each["Effect"] == "Allow"]
    await stands.set("barn", Policy=json.dumps(policy))


@change("warning: queue nobody: begins as this namespace does, and neither the code nor the stack")
async def a_queue_is_added(stands: Farm) -> None:
    await stands.clients.sqs.create_queue(QueueName=stands.called("nobody"))


@change("error: rule barn: is disabled, so what it would match never gets to barn.")
async def a_rule_is_disabled(stands: Farm) -> None:
    await stands.clients.events.disable_rule(
        Name=stands.called("barn"), EventBusName=stands.called("farm")
    )


@change(
    "error: rule barn: does not match farm.field: RainFell, which the code wants and matches "
    "farm.field: Frost, which the code does not want."
)
async def a_pattern_is_changed(stands: Farm) -> None:
    await stands.clients.events.put_rule(
        Name=stands.called("barn"),
        EventBusName=stands.called("farm"),
        EventPattern=json.dumps({**PATTERN, "detail-type": ["HayMade", "Frost"]}),
    )


@change("error: rule barn: has no dead-letter queue for its target, so what EventBridge cannot put")
async def the_dead_letter_queue_of_a_target_is_taken_away(stands: Farm) -> None:
    await stands.put_target("barn", DeadLetterConfig=None)


@change("error: rule barn: has InputPath for barn, and the code has not.")
async def what_a_target_gets_is_changed(stands: Farm) -> None:
    await stands.put_target("barn", InputPath="$.detail")


@change("error: rule cart.fifo: sends to cart.fifo in the message group 'all', and the code wants")
async def the_message_group_of_a_target_is_changed(stands: Farm) -> None:
    await stands.put_target("cart.fifo", SqsParameters={"MessageGroupId": "all"})


@change("warning: rule barn: also sends to cart-undelivered, which the code does not.")
async def a_target_is_added(stands: Farm) -> None:
    arn = f"arn:aws:sqs:us-east-1:000000000000:{stands.called('cart-undelivered')}"
    await stands.put_target("barn", Id="another", Arn=arn, DeadLetterConfig=None)


@change("warning: rule frost: begins as this namespace does, and neither the code nor the stack")
async def a_rule_is_added(stands: Farm) -> None:
    await stands.clients.events.put_rule(
        Name=stands.called("frost"),
        EventBusName=stands.called("farm"),
        EventPattern=json.dumps(PATTERN),
    )


@change("error: table barn: does not let items expire by expires_at, so inbox records stay for")
async def items_no_longer_expire(stands: Farm) -> None:
    await stands.clients.dynamodb.update_time_to_live(
        TableName=stands.called("barn"),
        TimeToLiveSpecification={"Enabled": False, "AttributeName": "expires_at"},
    )


@change("warning: table barn: cannot be restored to a point in time.")
async def point_in_time_recovery_is_turned_off(stands: Farm) -> None:
    await stands.clients.dynamodb.update_continuous_backups(
        TableName=stands.called("barn"),
        PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False},
    )


@change("warning: table barn: may be deleted by mistake: it is not protected.")
async def a_table_is_no_longer_protected(stands: Farm) -> None:
    await stands.clients.dynamodb.update_table(
        TableName=stands.called("barn"), DeletionProtectionEnabled=False
    )


@change("error: table barn: has no index relay.")
async def an_index_is_deleted(stands: Farm) -> None:
    await stands.clients.dynamodb.update_table(
        TableName=stands.called("barn"),
        GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "relay"}}],
    )


@change("warning: table barn: has no stream, so only the sweep of the relay finds what is to be")
async def the_stream_is_turned_off(stands: Farm) -> None:
    await stands.clients.dynamodb.update_table(
        TableName=stands.called("barn"), StreamSpecification={"StreamEnabled": False}
    )


@change("error: mapping of barn to barn: does not report which messages of a batch failed, so")
async def failures_of_a_batch_are_no_longer_reported(stands: Farm) -> None:
    await stands.feed(FunctionResponseTypes=[])


@change("warning: mapping of barn to barn: is disabled: enable it, unless another host has the")
async def a_mapping_is_disabled(stands: Farm) -> None:
    await stands.feed(Enabled=False)


@change("warning: mapping of barn to barn: has a BatchSize of 3, and the template of its stack")
async def a_batch_is_made_smaller(stands: Farm) -> None:
    await stands.feed(BatchSize=3)


@change("warning: mapping of cart-undelivered to barn: is in none of the stacks that were looked")
async def a_queue_is_fed_to_a_function_by_somebody_else(stands: Farm) -> None:
    arn = f"arn:aws:sqs:us-east-1:000000000000:{stands.called('cart-undelivered')}"
    await stands.functions.create_event_source_mapping(
        FunctionName=stands.called("barn"),
        EventSourceArn=arn,
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )


@change("error: queue cart-dlq.fifo: does not exist. The template of messaging has it, so somebody")
async def a_queue_is_deleted(stands: Farm) -> None:
    await stands.clients.sqs.delete_queue(QueueUrl=await stands.url("cart-dlq.fifo"))


@pytest.mark.parametrize("made", CHANGES)
async def test_a_change_by_hand_is_told_in_one_sentence(changed: Farm, made: str) -> None:
    by_hand, sentence = CHANGES[made]
    before = set(changed.last or await changed.told())
    await by_hand(changed)

    changed.last[:] = await changed.told()

    (told,) = set(changed.last) - before

    assert told.startswith(sentence)
    assert "Deploy again" not in told


# --- what the code has and the stack has not -----------------------------------------------


def with_longer_visibility() -> Topology:
    barn, *others = FARM.queues
    return replace(FARM, queues=(replace(barn, visibility=timedelta(minutes=5)), *others))


async def test_what_the_template_has_otherwise_than_the_code_comes_with_a_deployment(
    stands: Farm,
) -> None:
    assert await stands.told(with_longer_visibility()) == [
        "error: queue barn: hides a message for 60 s, and the code wants 300 s. Deploy again: "
        "cdk deploy messaging."
    ]


async def test_what_the_code_has_and_nobody_deployed_comes_with_a_deployment(stands: Farm) -> None:
    shed = Queue("shed", timedelta(seconds=60), timedelta(days=4), dead_letters="barn-dlq")

    (told,) = await stands.told(replace(FARM, queues=(*FARM.queues, shed)))

    assert told == "error: queue shed: does not exist. Deploy again: cdk deploy messaging."


async def test_what_the_stack_still_has_and_the_code_does_not_is_told(stands: Farm) -> None:
    less = replace(
        FARM,
        rules=FARM.rules[:1],
        queues=tuple(queue for queue in FARM.queues if queue.name.startswith("barn")),
    )

    told = await stands.told(less)

    assert [each.split(": ")[1] for each in told] == [
        "queue cart-dlq.fifo",
        "queue cart-undelivered",
        "queue cart.fifo",
        "rule cart.fifo",
    ]
    assert all("the stack messaging still has it, and the code does not" in each for each in told)


# --- what cannot be read -------------------------------------------------------------------


JSON: Final = json.dumps({"message": "You may not.", "__type": "AccessDeniedException"})
XML: Final = (
    "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
    "<Message>You may not.</Message></Error></ErrorResponse>"
)


@asynccontextmanager
async def refusing(body: str = JSON) -> AsyncIterator[str]:
    """A service that nobody may ask for anything."""

    async def answer(request: web.Request) -> web.Response:
        headers = {"x-amzn-errortype": "AccessDeniedException"} if body == JSON else {}
        return web.Response(text=body, status=403, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def at(stands: Farm, **endpoints: str) -> AbstractAsyncContextManager[Look]:
    """A look with some services elsewhere."""
    there = {**stands.config.endpoints, **endpoints}
    return looking(replace(stands.config, endpoints=there))


def subjects(told: Sequence[str]) -> set[str]:
    return {each.split(": ")[1] for each in told}


async def test_without_a_permission_that_is_told_and_the_rest_is_looked_at(stands: Farm) -> None:
    async with refusing() as url, at(stands, **{"lambda": url}) as look:
        first, *others = await stands.told(with_longer_visibility(), look)

    assert first.startswith("error: queue barn: hides a message for 60 s, and the code wants 300 s")
    assert all(each.startswith("warning: ") and "not looked at: " in each for each in others)
    assert {"queue barn", "queue cart.fifo"} <= subjects(others)
    assert any("Allow the action on the resource in the role's policy" in each for each in others)


async def test_what_may_not_be_looked_at_is_not_taken_to_be_missing(stands: Farm) -> None:
    async with refusing() as url, at(stands, dynamodb=url) as look:
        told = await stands.told(look=look)

    assert subjects(told) == {"table barn", "tables …"}
    assert all("not looked at: " in each for each in told)


async def test_without_a_look_at_the_stack_the_account_is_looked_at(stands: Farm) -> None:
    async with refusing(XML) as url, at(stands, cloudformation=url) as look:
        told = await stands.told(with_longer_visibility(), look)

    assert (
        "error: queue barn: hides a message for 60 s, and the code wants 300 s. Deploy again: cdk "
        "deploy messaging. If that changes nothing, somebody changed it by hand: change it back "
        "(to deploy the same template again does nothing)."
    ) in told
    assert any(each.startswith("warning: stack messaging: not looked at: ") for each in told)


async def test_a_stack_that_is_not_there_is_an_error(stands: Farm) -> None:
    with pytest.raises(NotProvisioned, match="There is no stack 'no-messaging' in us-east-1"):
        await stands.look.deployed(FARM, stack="no-messaging")


async def test_an_account_that_does_not_answer_is_an_error(stands: Farm) -> None:
    async with at(stands, cloudformation="http://127.0.0.1:1") as look:
        with pytest.raises(Unreachable, match="Is the emulator running"):
            await stands.told(look=look)


# --- the namespace -------------------------------------------------------------------------


def of(stands: Farm, namespace: str) -> Look:
    return replace(stands.look, config=replace(stands.config, namespace=namespace))


async def test_the_namespace_is_the_one_that_the_stack_tells(stands: Farm) -> None:
    assert await stands.told(look=of(stands, "")) == []


async def test_a_stack_of_another_namespace_is_refused(stands: Farm) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_NAMESPACE says 'other'"):
        await stands.told(look=of(stands, "other"))


async def test_a_stack_in_aws_is_not_compared_with_queues_of_an_emulator(stands: Farm) -> None:
    aws = "https://cloudformation.us-east-1.amazonaws.com"

    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL_CLOUDFORMATION"):
        async with at(stands, cloudformation=aws):
            pytest.fail("it was opened")
