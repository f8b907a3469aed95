"""What a template says, with the references of CloudFormation put in."""

from __future__ import annotations

from typing import Any, Final

from aws_cdk.assertions import Template

PSEUDO: Final = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "stack",
}


def resolved(value: Any, template: Template) -> Any:
    """A part of a template with `Ref`, `Fn::GetAtt` of an ARN and `Fn::Join` evaluated, for queues,
    tables and roles that have names. What else is referred to is left as it is."""
    resources: dict[str, Any] = template.to_json()["Resources"]
    return _resolved(value, resources)


def _resolved(value: Any, resources: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_resolved(each, resources) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Ref"}:
        return _ref(value["Ref"], resources)
    if set(value) == {"Fn::Join"}:
        separator, parts = value["Fn::Join"]
        return separator.join(map(str, _resolved(parts, resources)))
    if set(value) == {"Fn::GetAtt"} and value["Fn::GetAtt"][1] == "Arn":
        return _arn(value["Fn::GetAtt"][0], resources)
    return {key: _resolved(each, resources) for key, each in value.items()}


def _ref(name: str, resources: dict[str, Any]) -> Any:
    if name in PSEUDO:
        return PSEUDO[name]
    resource = resources.get(name)
    if resource is None:
        return {"Ref": name}
    if resource["Type"] == "AWS::SQS::Queue":
        return f"queue-url:{resource['Properties']['QueueName']}"
    return name


def _arn(name: str, resources: dict[str, Any]) -> str:
    resource = resources[name]
    service = resource["Type"].split("::")[1].lower()
    named = next(
        (value for key, value in resource.get("Properties", {}).items() if key.endswith("Name")),
        name,
    )
    return f"arn:aws:{service}:eu-west-1:123456789012:{_resolved(named, resources)}"
