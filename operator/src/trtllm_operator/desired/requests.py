"""Requests to the stage program: what each stage is told. The format is described in operator/docs/stage-program.md."""

from __future__ import annotations

from typing import Any

from trtllm_operator.api.llmengine import Build, LLMEngineSpec, Verify
from trtllm_operator.api.llmenginebuild import FrozenSource, LLMEngineBuildSpec
from trtllm_operator.desired import commands, names


def _source(source: FrozenSource) -> dict[str, Any]:
    if source.kind == "pvc":
        path = f"{names.SOURCE}/{source.path}" if source.path else names.SOURCE
        return {"kind": "pvc", "path": path, "revision": source.revision}
    return source.model_dump(
        by_alias=True, exclude_none=True, include={"kind", "repo", "endpoint", "revision", "allow_patterns", "ignore_patterns"}
    )


def resolve(spec: LLMEngineSpec, resource: str) -> dict[str, Any]:
    """Find the commit, the bytes and the model's configuration."""
    if (hub := spec.source.hugging_face) is not None:
        source = {"kind": "huggingFace", **hub.model_dump(by_alias=True, exclude_none=True, exclude={"token_secret_ref"})}
    else:
        path = spec.source.pvc.path if spec.source.pvc else ""
        source = {"kind": "pvc", "path": f"{names.SOURCE}/{path}" if path else names.SOURCE}
    return {"stage": "resolve", "resource": resource, "source": source}


def fetch(spec: LLMEngineBuildSpec, resource: str, checkpoint: str) -> dict[str, Any]:
    """Bring the files to the checkpoint's directory."""
    return {
        "stage": "fetch",
        "resource": resource,
        "source": _source(spec.source),
        "bytes": spec.model.bytes,
        "directory": f"{names.CHECKPOINTS}/{checkpoint}",
    }


def _expect(spec: LLMEngineBuildSpec, gpus: int) -> dict[str, Any]:
    expect: dict[str, Any] = {"gpus": gpus, "runtimeVersion": spec.runtime_version}
    if spec.compute_capability:
        expect["computeCapability"] = spec.compute_capability
    return expect


def build(spec: LLMEngineBuildSpec, resource: str, name: str, key: str, checkpoint: str, attempt: int) -> dict[str, Any]:
    """Convert, then trtllm-build."""
    options = spec.build or Build()
    directory = commands.attempt_directory(name, attempt)
    return {
        "stage": "build",
        "resource": resource,
        "attempt": attempt,
        "key": key,
        "steps": [
            {"name": "preflight", "argv": list(commands.PREFLIGHT)},
            {"name": "convert", "argv": commands.convert(spec, checkpoint, directory)},
            {"name": "build", "argv": commands.trtllm_build(options, directory)},
        ],
        "expect": _expect(spec, options.workers),
        "checkpoint": commands.checkpoint_files(checkpoint),
        "directory": f"{names.ENGINES}/{name}",
        "attemptDirectory": directory,
        "bytes": spec.model.bytes,
        "ranks": spec.parallelism.world_size,
    }


def artifact_directory(spec: LLMEngineBuildSpec, name: str, checkpoint: str) -> str:
    """Directory that holds the artifact and its manifest, in a pod."""
    return f"{names.ENGINES}/{name}" if spec.recipe == "TensorRTEngine" else f"{names.CHECKPOINTS}/{checkpoint}"


def publish(spec: LLMEngineBuildSpec, resource: str, name: str, key: str, checkpoint: str) -> dict[str, Any]:
    """Hash, name, and write the manifest."""
    request: dict[str, Any] = {
        "stage": "publish",
        "resource": resource,
        "recipe": spec.recipe,
        "build": name,
        "key": key,
        "checkpoint": commands.checkpoint_files(checkpoint),
        "directory": artifact_directory(spec, name, checkpoint),
        "ranks": spec.parallelism.world_size,
        "facts": {
            "runtimeVersion": spec.runtime_version,
            "runtimeImage": spec.runtime_image,
            "computeCapability": spec.compute_capability,
            "tensorParallel": spec.parallelism.tensor,
            "pipelineParallel": spec.parallelism.pipeline,
        },
    }
    if spec.recipe == "TensorRTEngine":
        request["attempts"] = f"{names.ENGINES}/{name}/attempts"
    return request


def verify(spec: LLMEngineBuildSpec, settings: Verify, resource: str, name: str, key: str, checkpoint: str, digest: str) -> dict[str, Any]:
    """Compare with the manifest, which must be the one of `digest`, then generate a few tokens."""
    directory = artifact_directory(spec, name, checkpoint)
    if spec.recipe == "TensorRTEngine":
        model, tokenizer, manifest = f"{directory}/artifact/engine", f"{directory}/artifact/tokenizer", f"{directory}/manifest.json"
    else:
        model = tokenizer = commands.checkpoint_files(checkpoint)
        manifest = f"{directory}/artifact-{key}.json"
    return {
        "stage": "verify",
        "resource": resource,
        "steps": [
            {"name": "preflight", "argv": list(commands.PREFLIGHT)},
            {"name": "smoke", "argv": commands.smoke(spec, settings, model, tokenizer)},
        ],
        "expect": _expect(spec, spec.parallelism.world_size),
        "directory": directory,
        "manifest": manifest,
        "digest": digest,
    }
