"""What `headrace dev` refuses before anything is started."""

from __future__ import annotations

import socket

import pytest

from headrace.aws.config import SERVICES
from tests.unit.cli.conftest import Headrace

STORE = "shop.app:store"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", *SERVICES.values()):
        monkeypatch.delenv(name, raising=False)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"])
def test_an_endpoint_of_the_environment_where_nothing_answers_is_one_sentence(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    url = free_address()
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv(variable, url)

    ended = headrace("dev", STORE)

    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert f"Nothing answers at {url}, which {variable} names: unset {variable}" in ended.err


@pytest.mark.parametrize("port", ["99999", "-1", "web"])
def test_a_port_that_is_none_is_wrong_use(headrace: Headrace, port: str) -> None:
    ended = headrace("dev", STORE, "--port", port)

    assert ended.code == 2
    assert "--port" in ended.err
    assert "Traceback" not in ended.err


def test_where_nothing_is_started_there_is_no_port_to_choose(headrace: Headrace) -> None:
    ended = headrace("dev", STORE, "--emulator", "none", "--port", "4566")

    assert ended.code == 2
    assert "starts nothing" in ended.err
