"""Runs one contender on some jobs after each other, and prints what the server counted of each:
`python -m tests.unit.side.several <server> <messages> <contender> <job> ...`"""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from importlib import import_module

from benchmarks.side.protocol import VARIABLE, Job, counts, reset

POISON = 0.1


def main(endpoint: str, messages: str, contender: str, *jobs: str) -> None:
    module = import_module(f"benchmarks.side.contenders.{contender}")
    found = {}
    for name in jobs:
        job = Job(name, endpoint, int(messages), poison=POISON)
        os.environ[VARIABLE] = job.as_json()
        reset(endpoint, messages=job.messages, poison=job.poison)
        with redirect_stdout(sys.stderr):
            module.main()
        found[name] = counts(endpoint)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
