"""What CloudFormation says of a stack: what is in it, and what its template gives that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.aws.config import place
from headrace.aws.faults import translated
from headrace.errors import Refused

NAMESPACE_OUTPUT: Final = "HeadraceNamespace"
"""The output of a stack that says how the names in it begin."""

KINDS: Final[Mapping[str, str]] = {
    "AWS::Events::EventBus": "bus",
    "AWS::Events::Rule": "rule",
    "AWS::SQS::Queue": "queue",
    "AWS::DynamoDB::Table": "table",
    "AWS::DynamoDB::GlobalTable": "table",
    "AWS::Lambda::EventSourceMapping": "mapping",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource. `id` is the one in the template, `physical` what it is called in AWS."""

    id: str
    type: str
    physical: str

    @property
    def name(self) -> str:
        """That of a queue is the end of its URL; that of a rule may come with its bus."""
        return self.physical.rpartition("/" if self.type == "AWS::SQS::Queue" else "|")[2]


@dataclass(frozen=True, slots=True)
class Stack:
    """`arn` has the partition, the region and the account in it."""

    name: str
    arn: str
    status: str
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether its last deployment is over and came through."""
        return self.status.endswith("_COMPLETE") and "ROLLBACK" not in self.status


async def describe(cloudformation: Any, name: str) -> Stack | None:
    """Nothing if there is no such stack; raises `CloudError` when that cannot be told."""
    try:
        answer = await _asked(cloudformation, "describe_stacks", "DescribeStacks", name)
    except Refused as error:
        # The one way in which CloudFormation says so.
        if error.code == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    found = answer["Stacks"][0]
    outputs = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", ())}
    return Stack(found["StackName"], found["StackId"], found["StackStatus"], outputs)


async def resources(cloudformation: Any, name: str) -> list[Resource]:
    """Those that exist, of the kinds in which headrace is interested or not."""
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
    with translated("ListStackResources", f"stack '{name}'", place(cloudformation)):
        summaries = [each async for page in pages for each in page["StackResourceSummaries"]]
    return [
        Resource(each["LogicalResourceId"], each["ResourceType"], each["PhysicalResourceId"])
        for each in summaries
        if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE"
    ]


async def template(cloudformation: Any, name: str) -> Mapping[str, Any]:
    """Its template as a mapping; an empty one if it is not JSON, as a hand-written one may be."""
    answer = await _asked(cloudformation, "get_template", "GetTemplate", name)
    body = answer["TemplateBody"]
    if not isinstance(body, str):
        return dict(body)
    try:
        return dict(json.loads(body))
    except ValueError:
        return {}


async def _asked(cloudformation: Any, method: str, operation: str, name: str) -> Any:
    with translated(operation, f"stack '{name}'", place(cloudformation)):
        return await getattr(cloudformation, method)(StackName=name)
