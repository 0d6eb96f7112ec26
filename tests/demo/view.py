"""The stages as they go: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tests.cluster.process import ClusterError
from tests.support.kubectl import condition

_STAGES = ("resolve", "fetch", "build", "publish", "verify")
_UTC = timezone.utc  # noqa: UP017


def _elapsed(stage: Mapping[str, Any]) -> str:
    if not stage.get("startedAt"):
        return ""
    start = datetime.fromisoformat(stage["startedAt"])
    end = datetime.fromisoformat(stage["finishedAt"]) if stage.get("finishedAt") else datetime.now(_UTC)
    return f"{max(0, int((end - start).total_seconds()))} s"


def rows(engine: Mapping[str, Any], service: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Stage, state, percent, elapsed, message: one row for each stage, and one for serving."""
    status = engine.get("status", {})
    progress = status.get("progress", {})
    known = {stage["name"]: stage for stage in status.get("stages", [])}
    result = []
    for name in _STAGES:
        stage = known.get(name, {})
        state = stage.get("state", "Pending")
        running = progress.get("stage") == name
        percent = "100 %" if state == "Succeeded" else f"{progress.get('percent', 0)} %" if running else ""
        message = progress.get("message", "") if running else stage.get("message", "")
        result.append((name, state, percent, _elapsed(stage), message))
    ready = condition(service, "Ready")
    wanted = service.get("status", {}).get("replicas")
    pods = f"{service.get('status', {}).get('readyReplicas', 0)}/{wanted}" if wanted is not None else ""
    result.append(
        ("serve", {"True": "Ready", "False": "Failed"}.get(ready.get("status", ""), "Pending"), pods, "", ready.get("message", ""))
    )
    return result


def watch(look: Callable[[], tuple[dict[str, Any], dict[str, Any]]], seconds: float) -> None:
    """Show the stages until the service is ready.

    Raises:
        ClusterError: a resource needs a person, or it takes too long; the message is the resource's own.
    """
    console = Console()
    deadline = time.monotonic() + seconds
    shown: dict[str, tuple[str, ...]] = {}
    live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
    if live:
        live.start()
    try:
        while True:
            engine, service = look()
            now = rows(engine, service)
            if live:
                live.update(_table(now))
            else:
                _lines(now, shown)
            if condition(service, "Ready").get("status") == "True" and condition(engine, "Ready").get("status") == "True":
                return
            for item in (engine, service):
                if condition(item, "Stalled").get("status") == "True":
                    raise ClusterError(
                        f"{item['kind']} {item['metadata']['name']}: {condition(item, 'Ready')['reason']}: {condition(item, 'Ready')['message']}"
                    )
            if time.monotonic() > deadline:
                raise ClusterError(f"not ready within {seconds:.0f} s; look at `kubectl describe llmengine,llmservice --namespace demo`")
            time.sleep(0.5)
    finally:
        if live:
            live.stop()


def _table(now: list[tuple[str, str, str, str, str]]) -> Table:
    table = Table("stage", "state", "done", "elapsed", "message", title="LLMEngine and LLMService tiny-llama")
    colours = {"Succeeded": "green", "Ready": "green", "Running": "yellow", "Failed": "red"}
    for name, state, done, elapsed, message in now:
        table.add_row(name, f"[{colours.get(state, 'dim')}]{state}[/]", done, elapsed, escape(message[:100]))
    return table


def _lines(now: list[tuple[str, str, str, str, str]], shown: dict[str, tuple[str, ...]]) -> None:
    for name, state, done, elapsed, message in now:
        if shown.get(name) != (state, done, message):
            if name in shown or state != "Pending":
                print(f"  {name:<8} {state:<10} {done:>6} {elapsed:>6}  {message[:110]}", flush=True)
            shown[name] = (state, done, message)
