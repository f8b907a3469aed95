"""Code of functions for stacks that nobody deploys: bundling it takes a while, and is tested by
itself."""

from __future__ import annotations

from typing import Final

from aws_cdk import aws_lambda as lambda_

from headrace.cdk.assets import CodeOf
from headrace.cdk.deployment import Placed


def _nothing(placed: Placed, entry: str, *, http: bool = False) -> lambda_.Code:
    return lambda_.Code.from_inline("def handler(event, context): ...")


NO_CODE: Final[CodeOf] = _nothing
