"""What is uploaded for Lambda: one bundle for each function, built without a container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from aws_cdk import AssetHashType
from aws_cdk import aws_lambda as lambda_

from .bundle import bundle
from .deployment import Deployment, Placed


class CodeOf(Protocol):
    """Gives the code of one function: `entry` is `module.attribute` of what Lambda calls."""

    def __call__(self, placed: Placed, entry: str, *, http: bool = False) -> lambda_.Code: ...


class Bundles:
    """Builds bundles into a folder, which keeps them from one synthesis to the next."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self._deployment = deployment
        self._folder = folder

    def __call__(self, placed: Placed, entry: str, *, http: bool = False) -> lambda_.Code:
        module = entry.rpartition(".")[0]
        made = bundle(
            [module],
            self._folder / f"{module}.zip",
            python=self._deployment.python,
            lock=list(self._locks(placed, http=http)),
            sources=[self._deployment.sources],
            models=placed.models,
            cache=self._folder / "packages",
        )
        # By its content, so that another version of zlib or Python deploys nothing.
        return lambda_.Code.from_asset(
            str(made.path), asset_hash=made.digest, asset_hash_type=AssetHashType.CUSTOM
        )

    def _locks(self, placed: Placed, *, http: bool) -> Iterator[Path]:
        locks = self._deployment.requirements
        yield locks["lambda"]
        if http:
            yield locks["http"]
        if self._deployment.tracing in locks:
            yield locks[self._deployment.tracing]
        for more in placed.options.on_lambda.requirements:
            yield self._deployment.root / more
