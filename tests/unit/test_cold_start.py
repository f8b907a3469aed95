"""What a Lambda function imports before its first invocation, and what it must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]

FORBIDDEN: Final = (
    "headrace.cli",
    "headrace.testing",
    "headrace.hosts.emulator",
    "headrace.hosts.health",
    "headrace.hosts.heartbeat",
    "headrace.hosts.local",
    "headrace.hosts.poller",
    "headrace.hosts.protection",
    "headrace.hosts.relay_lambda",
    "headrace.hosts.worker",
    "headrace.topology.derive",
    "headrace.topology.check",
    "headrace.topology.graph",
    "headrace.aws.provision",
    "headrace.aws.task_protection",
    "headrace_pytest",
    "tests",
    "benchmarks",
    "infra",
    # what only the command line, the tests and other hosts need
    "boto3",
    "click",
    "difflib",
    "http.server",
    "hypothesis",
    "ministack",
    "mypy",
    "pydantic.mypy",
    "pytest",
    "rich",
    "socketserver",
    "sqlite3",
    "starlette",
    "typer",
    "uvicorn",
    "uvloop",
)
"""Modules, and all below them, that no Lambda entry point of a service loads."""

ENTRY_POINTS: Final = tuple(
    sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "services").glob("*/lambda_handler.py")
    )
)

# aiobotocore imports httpx wherever it is installed, and that brings a command line of its own:
# rich and click. Tests have it, and a function's package has not.
_AS_DEPLOYED: Final = "import sys\nsys.modules['httpx'] = None\n"


def printed_by(program: str, **environment: str) -> Any:
    """What a new interpreter prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", _AS_DEPLOYED + program],
        check=True,
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            **environment,
        },
    )
    return json.loads(done.stdout)


def test_the_services_have_entry_points() -> None:
    assert "services.inventory.lambda_handler" in ENTRY_POINTS


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_an_entry_point_loads_nothing_that_a_handler_does_not_need(module: str) -> None:
    loaded = printed_by(
        f"import {module}, json\n"
        "print(json.dumps([name for name, module in sys.modules.items() if module is not None]))"
    )
    assert "aiobotocore.session" in loaded
    found = [
        name
        for name in loaded
        if any(name == forbidden or name.startswith(f"{forbidden}.") for forbidden in FORBIDDEN)
    ]
    assert found == []


FIRST_INVOCATION: Final = """
import json, logging
import services.inventory.lambda_handler as entry
logging.disable()
before = set(sys.modules)

class Context:
    aws_request_id = "3f6f0c86-7a3c-4a0b-9a2e-6c0f9d0b7c11"
    def get_remaining_time_in_millis(self):
        return 1_000

answer = entry.handler({"Records": []}, Context())
assert answer == {"batchItemFailures": []}, answer
print(json.dumps(sorted(set(sys.modules) - before)))
entry.handler.close()
"""


class Refusing(BaseHTTPRequestHandler):
    """Answers as AWS does to whoever may not ask."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b'{"__type": "AccessDeniedException", "message": "not yours"}'
        self.send_response(400)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def refusing_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_first_invocation_imports_next_to_nothing(refusing_url: str) -> None:
    """INIT has the full processor, and may be in a snapshot; what is imported later is paid for by
    whoever waits."""
    imported = printed_by(FIRST_INVOCATION, AWS_ENDPOINT_URL=refusing_url, AWS_REGION="us-east-1")
    own = [name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names]
    # The system's clock and chance are a file of thirty lines.
    assert own in ([], ["headrace.system"])
