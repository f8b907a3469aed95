"""The stacks of the sample shop: `make synth`, or `cdk deploy --all` in this folder."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import Aspects

from headrace.cdk.app import app

shop = app(Path(__file__).with_name("deploy.toml"))
if shop.node.try_get_context("nag"):
    from cdk_nag import AwsSolutionsChecks

    Aspects.of(shop).add(AwsSolutionsChecks(verbose=True))
shop.synth()
