"""Wheels made here, and sources of a small shop: what a bundle is built from, without an index."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

ARM = "cp313-cp313-manylinux_2_17_aarch64.manylinux2014_aarch64"
ANY = "py3-none-any"

Contents = Mapping[str, str | bytes]


def write(folder: Path, contents: Contents) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def wheel(folder: Path, name: str, tag: str, contents: Contents) -> str:
    """Write a wheel of version 1.0; returns its line of a lock."""
    path = folder / f"{name}-1.0-{tag}.whl"
    info = f"{name}-1.0.dist-info"
    tags = "".join(f"Tag: {each}\n" for each in _tags(tag))
    described = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{tags}",
        f"{info}/RECORD": "",
    }
    with ZipFile(path, "w") as archive:
        for each, content in {**contents, **described}.items():
            archive.writestr(each, content)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _tags(tag: str) -> Iterable[str]:
    python, abi, platforms = tag.split("-")
    return (f"{python}-{abi}-{platform}" for platform in platforms.split("."))


def model(prefix: str) -> bytes:
    """A service of AWS as botocore describes it, where a member is called as prose is."""
    content: dict[str, Any] = {
        "metadata": {"endpointPrefix": prefix},
        "documentation": "<p>Much text.</p>",
        "shapes": {"Page": {"members": {"documentation": {"shape": "String"}}}},
    }
    return gzip.compress(json.dumps(content).encode(), mtime=0)


def botocore() -> Contents:
    """Its data: eight services, and where they are."""
    services = ("dynamodb", "events", "s3", "scheduler", "sqs", "sso", "sso-oidc", "sts")
    prefixes = {"sso": "portal.sso", "sso-oidc": "oidc"}
    named = {service: prefixes.get(service, service) for service in services}
    endpoints: dict[str, Any] = {
        "partitions": [{"services": {prefix: {} for prefix in named.values()}}]
    }
    return {
        "botocore/__init__.py": "",
        "botocore/data/endpoints.json": json.dumps(endpoints),
        "botocore/data/_retry.json": "{}",
        **{f"botocore/data/{s}/2012/service-2.json.gz": model(p) for s, p in named.items()},
        **{f"botocore/data/{s}/2012/examples-1.json": "{}" for s in services},
        "botocore/data/s3/2012/service-2.sdk-extras.json": json.dumps({"version": 1, "merge": {}}),
    }


SHOP: Contents = {
    "shop/__init__.py": "",
    "shop/contracts.py": "class Sold: ...\n",
    "shop/stock/__init__.py": "",
    "shop/stock/lambda_handler.py": """
from __future__ import annotations
from typing import TYPE_CHECKING
import quick
from shop.stock import shelf
from ..contracts import Sold
if TYPE_CHECKING:
    from shop.mail.letters import Letter
def handler(event, context):
    from shop.stock.rare import answer
    return answer(event)
""",
    "shop/stock/shelf.py": "import tiny\n",
    "shop/stock/rare.py": "def answer(event): return event\n",
    "shop/stock/unused.py": "",
    "shop/stock/sizes.json": "{}",
    "shop/stock/tests/sizes.json": "{}",
    "shop/mail/__init__.py": "",
    "shop/mail/letters.py": "class Letter: ...\n",
    "shop/mail/letter.txt": "Dear",
}
"""A service `stock` that imports a contract, and for types only something of another service."""
