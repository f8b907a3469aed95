"""Each contender does its jobs, on the server that answers at once: nothing is lost, nothing done
twice, and nothing done for a bad message. Those whose library is not installed are left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.side.contenders.bare.sigv4 import Service, Signer
from benchmarks.side.server.process import instant_server

MESSAGES = 50
GOOD = 45

EFFECTS = ("effects", "events")
NOTHING = dict.fromkeys(EFFECTS, 0)
JOBS = {
    "headrace_": ("lambda", "drain", "publish"),
    "bare_loop": ("lambda", "drain", "publish"),
    "tuned_loop": ("lambda", "drain"),
    "wire": ("lambda", "drain", "publish"),
    "boto3_plain": ("lambda", "drain", "plain", "publish"),
    "powertools": ("lambda",),
}
NEEDS = {"boto3_plain": "boto3", "powertools": "aws_lambda_powertools"}
LEAVES_BAD_ONES = {"boto3_plain"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with instant_server() as endpoint:
        yield endpoint


@pytest.mark.parametrize("contender", JOBS)
def test_a_contender_does_each_message_once_and_a_bad_one_not_at_all(
    contender: str, server: str
) -> None:
    needed = NEEDS.get(contender)
    if needed is not None and find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed here")
    found = ran(contender, JOBS[contender], server)
    assert found.pop("publish", {"events": MESSAGES})["events"] == MESSAGES
    assert list(found) == [job for job in JOBS[contender] if job != "publish"]
    for job, counts in found.items():
        assert {name: counts[name] for name in EFFECTS} == dict.fromkeys(EFFECTS, GOOD), job
        assert {name: counts["lost"][name] for name in EFFECTS} == NOTHING, job
        assert {name: counts["doubled"][name] for name in EFFECTS} == NOTHING, job
        assert counts["wrong"] == NOTHING, job
        if job != "lambda":
            assert counts["deleted"] == (GOOD if contender in LEAVES_BAD_ONES else MESSAGES), job


def ran(contender: str, jobs: tuple[str, ...], endpoint: str) -> dict[str, Any]:
    """What the server counted of each job."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.unit.side.several",
            endpoint,
            str(MESSAGES),
            contender,
            *jobs,
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("token", [None, "a-session-token"])
@pytest.mark.parametrize(
    "service",
    [Service("dynamodb", "DynamoDB_20120810", "1.0"), Service("events", "AWSEvents", "1.1")],
)
def test_the_wires_signature_is_botocores(service: Service, token: str | None) -> None:
    body = '{"TableName":"orders","Item":{"pk":{"S":"Zoë"}}}'.encode()
    signer = Signer("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "eu-north-1", token)
    request = AWSRequest(
        "POST",
        "http://127.0.0.1:4566/",
        {
            "Content-Type": f"application/x-amz-json-{service.protocol}",
            "X-Amz-Target": f"{service.target}.PutItem",
        },
        body,
    )
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token)
    SigV4Auth(credentials, service.name, "eu-north-1").add_auth(request)
    # botocore signs for the time that it is, and asks nobody for it.
    signed_at = datetime.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ")
    ours = signer.headers(
        service, "127.0.0.1:4566", "PutItem", body, now=signed_at.replace(tzinfo=UTC).timestamp()
    )
    assert ours["authorization"] == request.headers["Authorization"]
