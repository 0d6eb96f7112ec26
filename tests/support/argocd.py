"""Argo CD's health checks as Argo CD runs them: a Lua script sees the object as the global `obj` and returns a table.

Argo CD's own interpreter is gopher-lua (Lua 5.1). LuaJIT gives the same results for nearly all of its bundled checks. Scripts from
argocd-cm get the base, table and package libraries only; bundled ones get all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from lupa.luajit21 import LuaRuntime, lua_type  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2] / "manifests" / "argocd"
CUSTOMIZATIONS = ROOT / "resource_customizations"
CONFIG_MAP = ROOT / "argocd-cm.yaml"

STATUSES = ("Healthy", "Progressing", "Suspended", "Degraded", "Missing", "Unknown")

# The string library is also behind the methods of strings, so their metatable goes with it.
_WITHOUT_LIBRARIES = """
debug.setmetatable("", nil)
for _, name in ipairs({"string", "math", "io", "os", "debug", "coroutine", "bit", "jit", "ffi"}) do
  _G[name] = nil
  package.loaded[name] = nil
  package.preload[name] = nil
end
"""


@dataclass(frozen=True)
class Health:
    """What a check says."""

    status: str
    message: str


@dataclass(frozen=True)
class Case:
    """One entry of a health_test.yaml."""

    kind: str
    file: Path
    wanted: Health

    def __str__(self) -> str:
        return f"{self.kind}-{self.file.stem}"


@cache
def script(kind: str, group: str = "trtllm.dev") -> str:
    """The check of a kind."""
    return (CUSTOMIZATIONS / group / kind / "health.lua").read_text()


def run(code: str, obj: Mapping[str, Any], *, libraries: bool) -> Health:
    """Run a check on an object.

    Args:
        code: Lua.
        obj: as the API server gives it.
        libraries: with all standard libraries, as Argo CD's bundled checks; without, as those of argocd-cm.

    Raises:
        lupa.LuaError: the script is wrong or fails.
        ValueError: it returns something that Argo CD does not understand.
    """
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    lua.globals().python = None
    if not libraries:
        lua.execute(_WITHOUT_LIBRARIES)
    lua.globals().obj = _to_lua(lua, obj)
    said = lua.execute(code)
    if lua_type(said) != "table":
        raise ValueError(f"a check must return a table, not {said!r}")
    found = dict(said.items())
    if found.keys() - {"status", "message"} or found.get("status") not in STATUSES:
        raise ValueError(f"a check must return a status and a message, not {found}")
    return Health(found["status"], found.get("message") or "")


def _to_lua(lua: Any, value: Any) -> Any:
    """As Argo CD hands values over: maps and lists are tables, null is nil."""
    if isinstance(value, Mapping):
        return lua.table_from({key: _to_lua(lua, item) for key, item in value.items() if item is not None})
    if isinstance(value, list | tuple):
        return lua.table_from([_to_lua(lua, item) for item in value])
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value)  # as Kubernetes' JSON decoder does
    return value


def cases() -> list[Case]:
    """All entries of all health_test.yaml, read as Argo CD's own test does."""
    found = []
    for file in sorted(CUSTOMIZATIONS.glob("*/*/health_test.yaml")):
        for test in yaml.safe_load(file.read_text())["tests"]:
            wanted = test["healthStatus"]
            found.append(Case(file.parent.name, file.parent / test["inputPath"], Health(wanted["status"], wanted.get("message", ""))))
    return found


def config_map() -> str:
    """The patch of argocd-cm, made from the scripts."""
    keys = {
        f"resource.customizations.health.{path.parent.parent.name}_{path.parent.name}": path.read_text()
        for path in sorted(CUSTOMIZATIONS.glob("*/*/health.lua"))
    }
    lines = [
        "# Health checks of trtllm.dev for an Argo CD that you run, made from resource_customizations/ (a test holds them equal).",
        "# With kustomize: components: [<this directory>], beside the manifests of Argo CD. Without:",
        "#   kubectl patch configmap argocd-cm --namespace argocd --patch-file argocd-cm.yaml",
        "apiVersion: v1",
        "kind: ConfigMap",
        "metadata:",
        "  name: argocd-cm",
        "data:",
    ]
    for key, code in keys.items():
        lines += [f"  {key}: |", *(f"    {line}".rstrip() for line in code.splitlines())]
    return "\n".join(lines) + "\n"
