"""The LLMEngineBuild for a resolved LLMEngine: its spec, its key, its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trtllm_operator.api.common import API_VERSION
from trtllm_operator.api.llmengine import Build, LLMEngineSpec, ResolvedSource
from trtllm_operator.api.llmenginebuild import FrozenSource, Kind, LLMEngineBuildSpec
from trtllm_operator.api.versions import Recipe
from trtllm_operator.desired import names
from trtllm_operator.desired.config import Config
from trtllm_operator.desired.match import with_hash


def runtime_image(spec: LLMEngineSpec, config: Config) -> str:
    """The image that builds, verifies and, by default, serves."""
    return spec.runtime.image or f"{config.runtime_repository}:{spec.runtime.version}"


def source_inputs(spec: LLMEngineSpec) -> dict[str, Any]:
    """The part of spec.source that decides what is fetched: neither the token nor its place belongs to it."""
    if spec.source.hugging_face is not None:
        return {
            "kind": "huggingFace",
            **spec.source.hugging_face.model_dump(by_alias=True, exclude_none=True, exclude={"token_secret_ref"}),
        }
    if spec.source.pvc is not None:
        return {"kind": "pvc", **spec.source.pvc.dump()}
    return {"kind": "none"}


def source_hash(spec: LLMEngineSpec) -> str:
    """While this is the same, the source is not resolved again."""
    return names.short(source_inputs(spec))


def frozen_source(spec: LLMEngineSpec, revision: str) -> FrozenSource:
    """The source with its commit in the place of a branch."""
    return FrozenSource.model_validate({**source_inputs(spec), "revision": revision})


def build_spec(
    spec: LLMEngineSpec, resolved: ResolvedSource, recipe: Recipe, compute_capability: str | None, config: Config
) -> LLMEngineBuildSpec:
    """Everything that decides what is built, and nothing else: the key is the digest of it."""
    engine = recipe == "TensorRTEngine"
    return LLMEngineBuildSpec(
        source=frozen_source(spec, resolved.revision),
        model=resolved.model,
        recipe=recipe,
        runtime_version=spec.runtime.version,
        runtime_image=runtime_image(spec, config),
        precision=spec.precision,
        parallelism=spec.parallelism,
        build=spec.build if engine else _limits(spec.build),
        compute_capability=compute_capability if engine else None,
    )


def _limits(build: Build) -> Build:
    """What serving a checkpoint needs of `build`: its limits, but no option of trtllm-build."""
    return Build(max_batch_size=build.max_batch_size, max_seq_len=build.max_seq_len, max_num_tokens=build.max_num_tokens)


def key(spec: LLMEngineBuildSpec) -> str:
    """SHA-256 in hex over the canonical JSON of the build's spec."""
    return names.digest(spec.dump())


def build_object(namespace: str, name: str, spec: Mapping[str, Any], owners: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The object as one of the engines that want it applies it: `owners` holds that engine's reference."""
    return with_hash(
        {
            "apiVersion": API_VERSION,
            "kind": Kind.kind,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": names.common_labels("build"),
                "ownerReferences": [dict(owner) for owner in owners],
            },
            "spec": dict(spec),
        }
    )
