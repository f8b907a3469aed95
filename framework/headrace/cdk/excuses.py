"""Where a rule of cdk-nag or checkov is not followed, and why: beside the resource itself."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import CfnResource
from constructs import Construct, IConstruct


@dataclass(frozen=True, slots=True)
class Excuse:
    """A rule, such as `AwsSolutions-SQS3` or `CKV_AWS_119`, and the reason in a sentence. Of
    cdk-nag's findings on IAM, `on` names the one that is meant."""

    rule: str
    reason: str
    on: str = ""


def excuse(construct: Construct, *excuses: Excuse) -> None:
    """Write excuses into the metadata of every resource of a construct, as both tools read it."""
    for resource in _resources(construct):
        for each in excuses:
            if each.rule.startswith("CKV"):
                _for_checkov(resource, each)
            else:
                _for_nag(resource, each)


def _resources(construct: IConstruct) -> list[CfnResource]:
    found = construct.node.find_all()
    return [each for each in found if CfnResource.is_cfn_resource(each)]


def _for_checkov(resource: CfnResource, excuse: Excuse) -> None:
    known = resource.get_metadata("checkov") or {"skip": []}
    skips = [*known["skip"], {"id": excuse.rule, "comment": excuse.reason}]
    resource.add_metadata("checkov", {"skip": skips})


def _for_nag(resource: CfnResource, excuse: Excuse) -> None:
    """The metadata that cdk-nag's own `NagSuppressions` writes, without needing the package."""
    known = resource.get_metadata("cdk_nag") or {"rules_to_suppress": []}
    rule = {"id": excuse.rule, "reason": excuse.reason}
    if excuse.on:
        rule["applies_to"] = [excuse.on]  # type: ignore[assignment]
    resource.add_metadata("cdk_nag", {"rules_to_suppress": [*known["rules_to_suppress"], rule]})
