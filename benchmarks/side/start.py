"""Where the time of a cold start goes: `python -m benchmarks.side.start`.

Programs that each import and open a little more than the one before them are run in turns, in the
environments of job e and with their bytecode compiled; a step is what a program takes longer than
the one before it, by the medians. The steps that are not headrace's are the least that anything on
aiobotocore with pydantic takes. Beside it stands the same of Powertools with boto3.

The last line has the milliseconds of each step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from statistics import median
from textwrap import dedent
from typing import Final

from benchmarks.side.contest import CONTENDERS, ROOT, prepare, python_of
from benchmarks.side.work import REGION

_ENDPOINT: Final = "http://127.0.0.1:1"
"""Nobody answers there, and nobody is asked: clients are opened, and make no call."""

_CLIENTS: Final = """
    async def opened():
        session = get_session()
        for service in ("sqs", "events", "dynamodb"):
            async with session.create_client(service) as client:
                pass
    asyncio.run(opened())
"""

STEPS: Final[Mapping[str, str]] = {
    "python": "",
    "pydantic": "import asyncio, orjson, pydantic",
    "aiobotocore": "import asyncio, orjson, pydantic\nfrom aiobotocore.session import get_session",
    "clients": "import asyncio, orjson, pydantic\nfrom aiobotocore.session import get_session\n"
    + dedent(_CLIENTS),
    "headrace": dedent("""
        import asyncio
        import headrace.hosts.lambda_
        from headrace.aws.client import open_ports, preload

        async def opened():
            async with open_ports():
                pass

        preload()
        asyncio.run(opened())
    """),
}
"""Programs, each of which does what those before it do, and one thing more."""

POWERTOOLS: Final = dedent("""
    import boto3
    from aws_lambda_powertools.utilities import batch, idempotency, parser

    for service in ("dynamodb", "events"):
        boto3.client(service)
""")


def measured(rounds: int) -> dict[str, float]:
    """Milliseconds of each step, and of Powertools' own program. Raises `NoEnvironment`."""
    prepare(["cold"], ["headrace", "powertools"], {})
    own = str(ROOT / ".venv" / "lambda" / "bin" / "python")
    (peer,) = (each for each in CONTENDERS if each.name == "powertools")
    commands = {name: [own, "-c", code] for name, code in STEPS.items()}
    commands["powertools"] = [python_of(peer, {}), "-c", POWERTOOLS]
    with tempfile.TemporaryDirectory() as bytecode:
        times = _in_turns(commands, rounds, bytecode)
    medians = {name: median(taken) * 1000 for name, taken in times.items()}
    steps, before = {}, 0.0
    for name in STEPS:
        steps[name], before = medians[name] - before, medians[name]
    return {**steps, "powertools": medians["powertools"]}


def _in_turns(
    commands: Mapping[str, Sequence[str]], rounds: int, bytecode: str
) -> dict[str, list[float]]:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(ROOT / "framework"),
        "PYTHONPYCACHEPREFIX": bytecode,
        "AWS_ENDPOINT_URL": _ENDPOINT,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, env=environment, check=True)
            # The first round leaves the bytecode.
            if number:
                times[name].append(time.perf_counter() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side.start", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=15)
    found = measured(parser.parse_args().rounds)
    whole = sum(found[name] for name in STEPS)
    for name in STEPS:
        sys.stdout.write(f"{name:<12}{found[name]:>6.0f} ms{found[name] / whole:>6.0%}\n")
    sys.stdout.write(f"{'all':<12}{whole:>6.0f} ms\n")
    sys.stdout.write(f"{'powertools':<12}{found['powertools']:>6.0f} ms\n")
    sys.stdout.write(" ".join(f"{name}_ms={value:.0f}" for name, value in found.items()) + "\n")


if __name__ == "__main__":
    main()
