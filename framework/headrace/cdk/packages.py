"""The packages of a lock, as they lie in a bundle: for its machine, and only what runs there."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from headrace.cdk.runtimes import Runtime, interpreter
from headrace.errors import ConfigurationError
from headrace.text import did_you_mean

MODELS: Final = frozenset({"dynamodb", "events", "scheduler", "sqs", "sso", "sso-oidc", "sts"})
"""The services of AWS that headrace calls, and those that credentials may come from."""

Files = dict[PurePosixPath, bytes]
"""What is in a bundle, by its name there."""

_DATA: Final = PurePosixPath("botocore/data")
_LAST_LINES: Final = 12


class NotInstalled(ConfigurationError):
    """The packages of a lock cannot be had for the machine they are meant for."""


def install(lock: str, runtime: Runtime, folder: Path) -> None:
    """Let pip put wheels into a folder; nothing of them is run. Raises `NotInstalled`."""
    requirements = folder.with_suffix(".txt")
    requirements.write_text(lock)
    command = [
        *(
            sys.executable,
            "-I",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            "--quiet",
        ),
        *("install", "--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes"),
        *("--target", str(folder), *runtime.pip_options(), "-r", str(requirements)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise NotInstalled(_why(done.stderr, runtime))


def read(folder: Path, models: Collection[str]) -> Files:
    """What of installed packages is needed to run: no tests, stubs, sources of extensions, scripts,
    and no models of services that are neither headrace's nor among `models`.

    Raises `ConfigurationError` for a model that botocore does not have.
    """
    files = {
        name: path.read_bytes()
        for name, path in _files(folder)
        if _runs(name) and not name.is_relative_to(_DATA)
    }
    if (folder / _DATA).is_dir():
        files |= _models(folder / _DATA, MODELS | set(models))
    return files


def bytecode(files: Mapping[PurePosixPath, bytes], runtime: Runtime, folder: Path) -> Files | None:
    """What Python would write into `__pycache__`, where Lambda's file system is read-only.

    It holds whatever the time of its source is, which Python does not look at. None where there
    is no interpreter of the version that will run it. A source that it cannot compile is left out.
    """
    python = interpreter(runtime.python)
    if python is None:
        return None
    sources = {name: content for name, content in files.items() if name.suffix == ".py"}
    _write(sources, folder)
    command = [
        *(python, "-I", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"),
        *("-s", str(folder), "-p", "/var/task", str(folder)),
    ]
    subprocess.run(command, capture_output=True, check=False, env=_environment())
    return {name: path.read_bytes() for name, path in _files(folder) if name.suffix == ".pyc"}


# --- what is left out ----------------------------------------------------------------------------

_FOLDERS: Final = frozenset({"__pycache__", "bin", "tests"})
_SUFFIXES: Final = frozenset({".c", ".h", ".md", ".pxd", ".pxi", ".pyc", ".pyi", ".pyx"})
_NAMES: Final = frozenset(
    {"INSTALLER", "RECORD", "REQUESTED", "WHEEL", "direct_url.json", "py.typed", "top_level.txt"}
)
"""Of a `.dist-info` METADATA, entry points and licences stay: programs ask for the first two."""


def _runs(name: PurePosixPath) -> bool:
    return not (
        _FOLDERS & set(name.parts[:-1])
        or name.suffix in _SUFFIXES
        or name.name in _NAMES
        or name.parts[0].endswith("-stubs")
    )


def _files(folder: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield PurePosixPath(path.relative_to(folder).as_posix()), path


def _write(files: Mapping[PurePosixPath, bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# --- botocore's models ---------------------------------------------------------------------------


def _models(data: Path, services: Collection[str]) -> Files:
    known = {path.name for path in data.iterdir() if path.is_dir()}
    for service in services:
        if service not in known:
            raise ConfigurationError(
                f"botocore has no model of {service!r}. {did_you_mean(service, known)}"
            )
    found: dict[PurePosixPath, Any] = {}
    for name, path in _files(data):
        if len(name.parts) == 1 or (name.parts[0] in services and "examples" not in name.name):
            # Not compressed: each cold start would unpack it again.
            found[name.with_suffix("") if name.suffix == ".gz" else name] = _json(path)
    endpoints = PurePosixPath("endpoints.json")
    _keep_endpoints(found[endpoints], {*services, *_prefixes(found)})
    return {_DATA / name: _written(content) for name, content in found.items()}


def _json(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


def _prefixes(models: Mapping[PurePosixPath, Any]) -> Iterator[str]:
    """What the services are called in the file of endpoints."""
    for name, content in models.items():
        # Beside a model may stand what is added to it for SDKs: service-2.sdk-extras.json.
        if name.name.startswith("service-") and "metadata" in content:
            yield content["metadata"]["endpointPrefix"]


def _keep_endpoints(endpoints: Any, services: Collection[str]) -> None:
    """Over a megabyte that is parsed at the first client, of which all but this is for others."""
    for partition in endpoints["partitions"]:
        of = partition["services"]
        partition["services"] = {name: of[name] for name in of if name in services}


def _written(content: Any) -> bytes:
    return json.dumps(_undocumented(content), separators=(",", ":"), ensure_ascii=False).encode()


def _undocumented(content: Any) -> Any:
    """Without prose, which is most of a model. A member that is called so has no text."""
    if isinstance(content, dict):
        return {
            key: _undocumented(value)
            for key, value in content.items()
            if not (key == "documentation" and isinstance(value, str))
        }
    if isinstance(content, list):
        return [_undocumented(value) for value in content]
    return content


# --- pip -----------------------------------------------------------------------------------------

_OF_OTHERS: Final = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_ROOT")


def _environment() -> dict[str, str]:
    """Without what would send packages elsewhere; which index there is stays its matter."""
    return {name: value for name, value in os.environ.items() if name not in _OF_OTHERS}


def _why(said: str, runtime: Runtime) -> str:
    if "No module named pip" in said:
        return (
            f"{sys.executable} has no pip, which gets the packages of a bundle: run "
            f"`{sys.executable} -m ensurepip`, or build with an interpreter that has it."
        )
    for line in said.splitlines():
        if "No matching distribution found for" in line:
            wanted = line.partition("No matching distribution found for ")[2].split(" --hash")[0]
            return (
                f"There is no wheel of {wanted} for {runtime}. Choose a version that has one, or "
                "another machine; if no version has, put a wheel of your own where pip looks, and "
                "its hash into the lock."
            )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in said:
        return f"What pip got is not what was locked:\n{_last(said.splitlines())}"
    return f"pip could not get the packages of the lock. It said:\n{_last(said.splitlines())}"


def _last(lines: Sequence[str]) -> str:
    return "\n".join(line for line in _telling(lines)[-_LAST_LINES:])


def _telling(lines: Iterable[str]) -> list[str]:
    return [line.rstrip() for line in lines if line.strip() and not line.startswith("WARNING")]
