"""Stage verify: the artifact is what was published, and it generates text on such a GPU as it will be served from."""

from __future__ import annotations

import json
from typing import Any

from trtllm_operator.builder import manifest
from trtllm_operator.builder.console import Advance, Progress
from trtllm_operator.builder.report import Failure
from trtllm_operator.builder.request import Request
from trtllm_operator.builder.steps import Runner
from trtllm_operator.builder.stopping import Stop

MARKER = "trtllm-smoke "
_OUTPUT = 1024


def run(request: Request, progress: Progress, stop: Stop) -> dict[str, Any]:
    """Facts of the report.

    Raises:
        Failure: what is wrong with the artifact or the node.
    """
    steps, path, digest = request.steps(), request.path("manifest"), request.text("digest")
    if "smoke" not in steps:
        raise Failure("InternalError", "--request: there is no step smoke")
    runner = Runner(stop)
    progress.update(0, "looking at the GPU")
    gpus = runner.preflight(steps.get("preflight"), request.table("expect"))
    found = manifest.read(path)
    if found is None:
        raise Failure("EngineCorrupt", f"there is no manifest that can be read at {path}. Delete the LLMEngineBuild: it is built again")
    if found[1] != digest:
        raise Failure(
            "EngineCorrupt",
            f"the manifest at {path} has the digest {found[1]}, and {digest} was published. Delete the LLMEngineBuild: it is built again",
        )
    advance = Advance(progress, found[0].size, "comparing files with the manifest", (5, 40))
    # Before it is loaded: a damaged engine can do anything.
    if (wrong := manifest.content_difference(path.parent, found[0], advance)) is not None:
        raise Failure(
            "EngineCorrupt",
            f"the artifact in {path.parent} is not what was published: {wrong}. Delete the LLMEngineBuild: it is built again",
        )
    said: dict[str, Any] = {}

    def watch(line: str) -> None:
        _, marker, text = line.partition(MARKER)
        if marker:
            said.update(_parse(text))

    ended, log = runner.run(steps["smoke"], on_line=watch, on_tick=lambda: progress.update(40, "loading the model and generating text"))
    text, tokens = said.get("text"), said.get("tokens")
    if not isinstance(text, str) or not text.strip() or not isinstance(tokens, int) or tokens < 1:
        what = f"generated {tokens} tokens and no text" if said else "ended without error and without an answer"
        raise Failure("VerifyFailed", f"the smoke test {what}. Look at the log of the pod", step="smoke", detail=log.detail())
    progress.update(100, f"generated {tokens} tokens")
    return {"output": text[:_OUTPUT], "tokens": tokens, "seconds": round(ended.seconds, 1), "gpus": [gpu.fact() for gpu in gpus]}


def _parse(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
