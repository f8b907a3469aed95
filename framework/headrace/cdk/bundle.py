"""A service as a zip file for Lambda: made by pip and this module, without a container.

    bundle(["services.inventory.lambda_handler"], Path("build/inventory.zip"))

In it are the packages of a lock, as wheels for the machine they will run on; of headrace, of the
service and of its contracts only the modules that the entry points may import; and the bytecode of
all of them. The same input gives the same file.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from headrace.cdk import packages
from headrace.cdk.imports import Program, program
from headrace.cdk.locks import read_locks
from headrace.cdk.packages import Files
from headrace.cdk.runtimes import Machine, Runtime, here, interpreter
from headrace.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOCK: Final = Path("infra/requirements/lambda.txt")
CACHE: Final = Path("build/bundles")

UNZIPPED_BYTES: Final = 250 * 1024 * 1024
"""A function and its layers, unpacked ("Lambda quotas", developer guide)."""

_RECIPE: Final = "1"
"""Another number makes packages anew that earlier versions of this module have kept."""
_PROVIDED: Final = frozenset({"awslambdaric", "snapshot_restore_py"})
"""Lambda's Python brings these along. Its boto3 is not among them: beside the botocore of a bundle
it is of another version."""
_LIBRARY: Final = Path(__file__).parents[1]
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = (stat.S_IFREG | 0o644) << 16
_UNIX: Final = 3
_LEVEL: Final = 9


@dataclass(frozen=True, slots=True)
class Bundle:
    """A zip file, and what it comes to.

    `digest` is that of its content, and the same on every machine. `modules` are those of the
    sources and of headrace. Without bytecode (`compiled`) each cold start compiles the sources,
    which takes seconds.
    """

    path: Path
    zipped_bytes: int
    unzipped_bytes: int
    files: int
    digest: str
    modules: tuple[str, ...]
    compiled: bool


def bundle(
    service_modules: Sequence[str],
    target: Path,
    *,
    python: str = "3.13",
    machine: Machine = "arm64",
    lock: Path | Sequence[Path] = LOCK,
    sources: Sequence[Path] = (Path(),),
    models: Collection[str] = (),
    more_modules: Sequence[str] = (),
    cache: Path = CACHE,
) -> Bundle:
    """Write the zip file `target` with the entry points `service_modules` and what they need.

    `lock` names one lock or several, whose versions agree. Modules are looked for in `sources`;
    `more_modules` are those that the service imports by a name it puts together. Files that are
    not Python are taken from the packages of the entry points. `models` are the services of AWS
    that the service calls itself, as botocore names them (`s3`, `ses`); a client of another raises
    botocore's `UnknownServiceError`. `cache` keeps the packages of each lock.

    The packages are compiled by an interpreter of version `python`, if there is one here. Raises
    `ConfigurationError`, which `NotInstalled` is one of.
    """
    runtime = _runtime(python, machine)
    own = program([*service_modules, *more_modules], sources, _LIBRARY)
    locks = [lock] if isinstance(lock, Path) else list(lock)
    requirements = read_locks(locks, runtime.markers())
    kept = _packages(requirements, runtime, models, cache)
    _require_foreign(own, kept, locks)
    files = _own_files(own, service_modules)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(target) as unfinished, tempfile.TemporaryDirectory() as scratch:
        shutil.copyfile(kept, unfinished)
        compiled = packages.bytecode(files, runtime, Path(scratch))
        _require_compiled(files, compiled, runtime)
        _add(unfinished, {**files, **(compiled or {})})
    return _measured(target, tuple(own.modules), compiled=compiled is not None)


def _runtime(python: str, machine: Machine) -> Runtime:
    if machine == "here" and python != here():
        raise ConfigurationError(
            f"A bundle for this machine is for its Python, {here()}, and not for {python}: leave "
            "out one of the two."
        )
    return Runtime(python, machine)


# --- packages ------------------------------------------------------------------------------------


def _packages(requirements: str, runtime: Runtime, models: Collection[str], cache: Path) -> Path:
    """The zip file of the packages, which is made once for everything that it depends on."""
    python = interpreter(runtime.python)
    if python is None:
        logger.warning(
            "There is no Python %s here to compile a bundle, so each cold start will compile it, "
            "which takes seconds: install it, or name it in PYTHON%s.",
            runtime.python,
            runtime.python.replace(".", ""),
        )
    told = (_RECIPE, requirements, repr(runtime), *sorted(models), f"compiled {python is not None}")
    path = cache / f"{hashlib.sha256(chr(0).join(told).encode()).hexdigest()[:24]}.zip"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as unfinished, tempfile.TemporaryDirectory(dir=cache) as scratch:
            folder = Path(scratch, "packages")
            packages.install(requirements, runtime, folder)
            files = packages.read(folder, models)
            compiled = packages.bytecode(files, runtime, Path(scratch, "compiled"))
            _add(unfinished, {**files, **(compiled or {})})
    return path


_LATER: Final = {"tenacity": "headrace.retrying"}
"""What is imported only once something has failed, and is needed then."""


def _require_foreign(own: Program, kept: Path, locks: Iterable[Path]) -> None:
    with ZipFile(kept) as archive:
        tops = {name.partition("/")[0].partition(".")[0] for name in archive.namelist()}
    later = {package: by for package, by in _LATER.items() if by in own.modules}
    for package, importer in {**own.foreign, **later}.items():
        if package not in tops | _PROVIDED:
            raise ConfigurationError(
                f"{importer} imports {package}, and the lock has no such package "
                f"({', '.join(map(str, locks))}): name a lock that has, or import it in the "
                "function that needs it."
            )


# --- modules -------------------------------------------------------------------------------------

_CODE: Final = frozenset({".py", ".pyc", ".pyi"})


def _own_files(own: Program, entry_points: Iterable[str]) -> Files:
    files = {
        _package(name, path) / path.name: path.read_bytes() for name, path in own.modules.items()
    }
    for entry_point in entry_points:
        path = own.modules[entry_point]
        package = _package(entry_point, path)
        if package.parts:
            files |= {package / name: data.read_bytes() for name, data in _data(path.parent)}
    return files


def _package(name: str, path: Path) -> PurePosixPath:
    parts = name.split(".")
    return PurePosixPath(*(parts if path.name == "__init__.py" else parts[:-1]))


def _data(package: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    for path in sorted(package.rglob("*")):
        name = PurePosixPath(path.relative_to(package).as_posix())
        if path.is_file() and not any(map(_is_hidden, name.parts)) and path.suffix not in _CODE:
            yield name, path


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part in ("tests", "__pycache__")


def _require_compiled(files: Files, compiled: Files | None, runtime: Runtime) -> None:
    for name in files if compiled is not None else ():
        if name.suffix == ".py" and _bytecode_of(name, runtime) not in (compiled or {}):
            raise ConfigurationError(
                f"Python {runtime.python} cannot compile {name}: correct it, or choose the version "
                "it is written for."
            )


def _bytecode_of(name: PurePosixPath, runtime: Runtime) -> PurePosixPath:
    return name.parent / "__pycache__" / f"{name.stem}.{runtime.tag}.pyc"


# --- the zip file --------------------------------------------------------------------------------


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside it, which takes its place at once when it is done: others may read, or write,
    the same one."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        unfinished = Path(folder, path.name)
        yield unfinished
        unfinished.replace(path)


def _add(archive: Path, files: Files) -> None:
    """What is the same each time: the order, the dates, the modes and how it is compressed."""
    with ZipFile(archive, "a", ZIP_DEFLATED, compresslevel=_LEVEL) as file:
        for name, content in sorted(files.items()):
            info = ZipInfo(str(name), _DATE)
            info.create_system = _UNIX
            info.external_attr = _MODE
            file.writestr(info, content, ZIP_DEFLATED, _LEVEL)


def _measured(path: Path, modules: tuple[str, ...], *, compiled: bool) -> Bundle:
    with ZipFile(path) as archive:
        entries = archive.infolist()
        digest = _digest(archive)
    unzipped = sum(entry.file_size for entry in entries)
    if unzipped > UNZIPPED_BYTES:
        raise ConfigurationError(
            f"{path} has {unzipped / 1e6:.0f} MB unpacked, and Lambda takes "
            f"{UNZIPPED_BYTES / 1e6:.0f}: lock fewer packages, or run the service on Fargate."
        )
    return Bundle(
        path, path.stat().st_size, unzipped, len(entries), digest, modules, compiled=compiled
    )


def _digest(archive: ZipFile) -> str:
    """Of names and contents. Not of what a compression library or a patch release of Python makes
    of the same content, which differ between machines."""
    digest = hashlib.sha256()
    for name in sorted(archive.namelist()):
        content = b"" if name.endswith(".pyc") else archive.read(name)
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()
