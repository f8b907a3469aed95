"""The synthesised messaging stack, deployed through CloudFormation on an emulator."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from headrace.aws.deployed import looking
from headrace.aws.provision import provision
from headrace.aws.standing import OFF, Standing
from headrace.cdk.deployment import Deployment
from tests.e2e.program import run
from tests.infra.cloudformation import Formed, formed
from tests.integration.aws.stacks import config_at
from tests.unit.cli.conftest import Headrace, calling

pytestmark = pytest.mark.emulator

KINDS = ("rules", "queues", "tables")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(deployment: Deployment) -> AsyncIterator[Formed]:
    async with formed(deployment) as stack:
        yield stack


def items(standing: Standing) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every single thing that is known of every rule, queue and table, under its path."""
    for kind in KINDS:
        for each in getattr(standing, kind):
            yield from _leaves((kind, each.name), asdict(each))


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves((*path, str(key)), part)
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from _leaves((*path, str(number)), part)
    else:
        yield path, value


@pytest.mark.asyncio(loop_scope="module")
async def test_cloudformation_makes_what_the_provisioner_makes_item_by_item(
    there: Formed, deployment: Deployment
) -> None:
    wanted = deployment.topology
    by_calls = config_at(there.endpoint, "by-calls")
    await provision(wanted, by_calls)
    async with looking(by_calls) as look:
        made = dict(items(await look.standing(wanted)))
    found = (await there.read()).standing
    deployed = dict(items(found))

    # What one of them leaves out, by name; everything else is the same.
    stack_only: dict[tuple[str, ...], object] = {
        ("tables", "order", "stream"): (OFF, "NEW_IMAGE"),
        **{("tables", table.name, "protected"): (False, True) for table in found.tables},
        # AWS does it unasked.
        **{("queues", queue.name, "encrypted"): (None, True) for queue in found.queues},
        # Over plain HTTP, which only emulators speak, it would lock everyone out.
        **{("queues", queue.name, "gate", "tls_only"): (False, True) for queue in found.queues},
    }
    ministack_ignores: dict[tuple[str, ...], object] = {
        ("tables", "order", "indexes", "0", "status"): ("ACTIVE", None),
        **{("tables", t.name, "ttl_attribute"): ("expires_at", OFF) for t in found.tables},
    }
    differing = {path for path in made if made[path] != deployed.get(path)}
    assert made.keys() == deployed.keys()
    assert {p: (made[p], deployed[p]) for p in differing} == {**stack_only, **ministack_ignores}
    assert {path[:2] for path in made} == {
        *(("rules", rule.name) for rule in wanted.rules),
        *(("queues", queue.name) for queue in wanted.queues),
        *(("tables", table.name) for table in wanted.tables),
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_deployed_is_what_the_code_wants(there: Formed) -> None:
    found = await there.read()

    assert [each.what for each in found.standing.unseen] == ["whether its index relay is active"]
    assert found.standing.buses == ("shop",)
    assert await there.drift() == []


@pytest.mark.asyncio(loop_scope="module")
async def test_the_template_says_of_itself_what_stands(there: Formed) -> None:
    found = await there.read()

    assert found.declared is not None
    assert found.declared.unseen == ()
    stands, says = dict(items(found.standing)), dict(items(found.declared))
    ignored = {
        *(("tables", t.name, "ttl_attribute") for t in found.standing.tables),
        *(("tables", t.name, "recovery") for t in found.standing.tables),
    }
    assert {path for path in stands if stands[path] != says.get(path)} == ignored
    assert stands.keys() == says.keys()


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_namespace_the_one_of_the_stack_is_used(there: Formed) -> None:
    anonymous = replace(there, config=replace(there.config, namespace=""))

    assert (await anonymous.read()).standing.namespace == there.config.namespace


@pytest.mark.asyncio(loop_scope="module")
async def test_30_orders_run_on_what_cloudformation_made_and_change_nothing_there(
    there: Formed, tmp_path: Path
) -> None:
    before = (await there.read()).standing

    ended = run(
        "services.demo",
        "--orders=30",
        "--provisioned",
        environ=there.environment,
        scratch=tmp_path,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"orders=30 .* lost=0 doubled=0 dead_letters=2$", ended.stdout.strip())
    # The provisioner would have let items expire, which CloudFormation here does not.
    assert (await there.read()).standing == before
    assert {table.ttl_attribute for table in before.tables} == {OFF}


# --- the command line ----------------------------------------------------------------------

EVERYBODY = [f"services.{name}.app:{name}" for name in ("order", "inventory", "notification")]


@pytest.fixture
def headrace(
    there: Formed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Headrace:
    for name, value in there.environment.items():
        monkeypatch.setenv(name, value)
    return calling(capsys)


def test_check_tells_what_is_not_as_the_code_wants_it(there: Formed, headrace: Headrace) -> None:
    ended = headrace("check", *EVERYBODY, "--deployed", there.stack)

    errors = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    assert [line.partition(" by expires_at")[0] for line in errors] == [
        f"error: table prod-{table}: does not let items expire"
        for table in ("inventory", "notification", "order")
    ]
    assert "3 errors" in ended.out
    assert (ended.code, ended.err) == (1, "")


def test_check_needs_no_credentials_where_an_emulator_needs_none(
    there: Formed, headrace: Headrace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    ended = headrace("check", *EVERYBODY, "--deployed", there.stack)

    assert "3 errors" in ended.out, ended.err


def test_check_of_one_service_tells_what_else_the_stack_has(
    there: Formed, headrace: Headrace
) -> None:
    ended = headrace("check", EVERYBODY[1], "--deployed", there.stack)

    assert f"queue prod-order: the stack {there.stack} still has it, and the code" in ended.out
    assert "queue prod-inventory: " not in ended.out


def test_check_of_a_stack_that_is_not_there_says_where_it_looked(headrace: Headrace) -> None:
    ended = headrace("check", *EVERYBODY, "--deployed", "shop-messages")

    assert ended.code == 3
    assert ended.err.startswith("headrace: There is no stack 'shop-messages' in us-east-1 at http")


def test_the_demo_makes_nothing_where_nothing_is(there: Formed, tmp_path: Path) -> None:
    nowhere = {**there.environment, "HEADRACE_NAMESPACE": "nowhere"}

    ended = run("services.demo", "--orders=1", "--provisioned", environ=nowhere, scratch=tmp_path)

    assert ended.returncode == 1
    assert "does not exist" in " ".join(ended.stdout.split())
