"""The command line, imports, and the pure part: no cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import machine
from tests.bench.goals import Figure
from tests.support.samples import engine, service
from trtllm_operator.cli import render
from trtllm_operator.decide import service as service_decision
from trtllm_operator.decide.input import ServiceInput
from trtllm_operator.desired.config import Config

GOAL = 0.3
RENDER_GOAL = 1.0
_ROUNDS = 100
_SOURCE = Path(__file__).parents[2] / "operator" / "src"


def _seconds(*argv: str, source: Path, bytecode: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(source), **machine.bytecode(bytecode)}
    began = time.monotonic()
    subprocess.run([sys.executable, *argv], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.monotonic() - began


def start(repetitions: int, source: Path = _SOURCE) -> Iterator[Figure]:
    """Wall time of whole processes, Python's own start included. The first one of each is not counted: it compiles."""
    for what, goal, argv in (
        ("trtllm-operator --help", GOAL, ("-m", "trtllm_operator", "--help")),
        ("import of the command line", GOAL, ("-c", "import trtllm_operator.__main__")),
        ("import of the operator", None, ("-c", "import trtllm_operator.runtime.main as m; m.deciders()")),
        ("Python alone", None, ("-c", "pass")),
    ):
        with tempfile.TemporaryDirectory(prefix="trtllm-bench-bytecode-") as directory:
            _, *values = (_seconds(*argv, source=source, bytecode=Path(directory)) for _ in range(1 + repetitions))
        yield Figure("start", what, tuple(values), unit="s", goal=goal)


def _input() -> ServiceInput:
    """A service that asks for everything, with a Deployment, so that its autoscaler is made, too."""
    config, assumed = Config(tools_image="example.test/tools:1"), render.Assumed("LlamaForCausalLM", 16 * 2**30)
    made = render._observed(engine("tiny", "default"), 1)
    ready, builds, _ = render._engine(made, config, assumed)
    spec: dict[str, Any] = {
        "serve": {"options": {"guided_decoding_backend": "xgrammar"}},
        "autoscaling": {"minReplicas": 2, "maxReplicas": 4, "metrics": [{"type": "resource", "name": "cpu", "averageUtilization": 80}]},
    }
    asked = render._observed(service("chat", "default", **spec), 2)
    given = ServiceInput(service=asked, config=config, now=datetime.now(UTC), engine=ready, builds=builds)
    deployment = next(apply.obj for apply in service_decision.decide(given).apply if apply.obj["kind"] == "Deployment")
    there = {**deployment, "metadata": {**deployment["metadata"], "uid": "d", "generation": 1}}
    return ServiceInput(service=asked, config=config, now=given.now, engine=ready, builds=builds, children=(there,))


def pure(repetitions: int) -> Iterator[Figure]:
    """CPU time of one decision with all children."""
    given = _input()
    kinds = [apply.obj["kind"] for apply in service_decision.decide(given).apply]
    values = []
    for _ in range(repetitions):
        began = time.process_time()
        for _ in range(_ROUNDS):
            service_decision.decide(given)
        values.append((time.process_time() - began) / _ROUNDS * 1000)
    yield Figure(
        "render", "one LLMService with all children, pure", tuple(values), unit="ms CPU", goal=RENDER_GOAL, details={"objects": kinds}
    )
