"""What is understood of policies is what IAM makes of them, and the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.testing.recording import Call
from headrace.topology.access import Resource
from tests.infra.policies import Misunderstood, Place, Policy, role_policies

TABLE = "arn:aws:dynamodb:eu-central-1:123456789012:table/rain-shed"
PLACE = Place("rain")


def policy(*statements: dict[str, Any]) -> Policy:
    return Policy.of({"Version": "2012-10-17", "Statement": list(statements)})


def allow(actions: Any, resources: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources, **more}


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("dynamodb:PutItem", TABLE, True),
        ("dynamodb:putitem", TABLE, True),
        ("dynamodb:GetItem", TABLE, False),
        ("dynamodb:PutItem", f"{TABLE}-2", False),
        ("dynamodb:PutItem", f"{TABLE}/index/relay", False),
        ("dynamodb:PutItem", TABLE.upper(), False),
    ],
)
def test_an_action_is_allowed_on_the_resource_that_is_named(
    action: str, resource: str, allowed: bool
) -> None:
    assert policy(allow("dynamodb:PutItem", TABLE)).allows(action, resource) is allowed


def test_wildcards_stand_for_any_characters_of_one_part_of_an_arn() -> None:
    some = policy(allow(["dynamodb:*Item"], [f"{TABLE}*", "arn:aws:sqs:eu-?:*:rain-*"]))
    assert some.allows("dynamodb:PutItem", f"{TABLE}/index/relay")
    assert some.allows("dynamodb:PutItem", "arn:aws:sqs:eu-1:1:rain-a")
    assert not some.allows("dynamodb:PutItem", "arn:aws:sqs:eu-1:1:2:rain-a")
    assert not some.allows("dynamodb:Query", TABLE)


def test_what_is_denied_is_not_allowed_whatever_else_stands_there() -> None:
    denied = {"Effect": "Deny", "Action": "dynamodb:Delete*", "Resource": "*"}
    both = policy(allow("dynamodb:*", "*"), denied)
    assert both.allows("dynamodb:PutItem", TABLE)
    assert not both.allows("dynamodb:DeleteItem", TABLE)
    assert set(both.grants) == {("dynamodb:*", "*")}


def test_what_nobody_speaks_of_is_not_allowed() -> None:
    assert not policy().allows("dynamodb:PutItem", TABLE)


@pytest.mark.parametrize(
    "statement",
    [
        allow("dynamodb:PutItem", TABLE, Condition={"Bool": {"aws:SecureTransport": "true"}}),
        {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"},
        {"Effect": "Allow", "Action": "iam:*", "NotResource": TABLE},
        allow([], TABLE),
        allow("dynamodb:PutItem", {"Ref": "Table"}),
        {**allow("dynamodb:PutItem", TABLE), "Effect": "Perhaps"},
    ],
    ids=["condition", "not action", "not resource", "no action", "unresolved", "effect"],
)
def test_a_statement_that_says_more_is_refused(statement: dict[str, Any]) -> None:
    with pytest.raises((Misunderstood, KeyError)):
        policy(statement)


def test_a_policy_of_another_version_is_refused() -> None:
    with pytest.raises(Misunderstood, match="2012-10-17"):
        Policy.of({"Version": "2008-10-17", "Statement": []})


def test_an_intrinsic_function_that_is_not_known_is_refused() -> None:
    with pytest.raises(Misunderstood, match="Fn::ImportValue"):
        PLACE.resolved({"Resource": {"Fn::ImportValue": "somewhere"}})
    with pytest.raises(Misunderstood, match="Arn of Table"):
        PLACE.resolved({"Fn::GetAtt": ["Table", "Arn"]}, {"Table": {"Type": "AWS::X::Y"}})


def test_references_are_put_in() -> None:
    account = {"Ref": "AWS::AccountId"}
    joined = {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, ":sqs:::", account]]}
    assert PLACE.resolved(joined) == "arn:aws:sqs:::123456789012"
    assert PLACE.resolved({"Fn::Sub": "${AWS::Region}-a"}) == "eu-central-1-a"


@pytest.mark.parametrize(
    ("kind", "name", "arn"),
    [
        (Resource.QUEUE, "shed-dlq", "arn:aws:sqs:eu-central-1:123456789012:rain-shed-dlq"),
        (Resource.TABLE, "shed", TABLE),
        (Resource.INDEX, "shed/relay", f"{TABLE}/index/relay"),
        (Resource.BUS, "farm", "arn:aws:events:eu-central-1:123456789012:event-bus/rain-farm"),
        (Resource.BUS, "default", "arn:aws:events:eu-central-1:123456789012:event-bus/default"),
        (
            Resource.SCHEDULE,
            "mow",
            "arn:aws:scheduler:eu-central-1:123456789012:schedule/default/rain-mow",
        ),
        (Resource.SCHEDULER_ROLE, "shed", "arn:aws:iam::123456789012:role/rain-shed-scheduler"),
    ],
)
def test_a_call_is_made_on_what_is_called_so_in_the_account(
    kind: Resource, name: str, arn: str
) -> None:
    assert PLACE.arn_of(Call("any:Action", (kind, name))) == arn


def test_a_role_may_do_what_all_policies_say_that_are_attached_to_it() -> None:
    def document(action: str) -> dict[str, Any]:
        return {"Version": "2012-10-17", "Statement": [allow(action, "*")]}

    own = {"PolicyName": "own", "PolicyDocument": document("sqs:SendMessage")}
    attached = {"Roles": [{"Ref": "Role"}], "PolicyDocument": document("xray:PutTraceSegments")}
    found = role_policies(
        PLACE,
        {
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"Policies": [own]}},
            "Policy": {"Type": "AWS::IAM::Policy", "Properties": attached},
        },
    )
    assert set(found["Role"].grants) == {("sqs:SendMessage", "*"), ("xray:PutTraceSegments", "*")}
