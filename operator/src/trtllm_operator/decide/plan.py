"""The plan of an LLMEngine: what will be done with which GPUs, or why it can't be, before a GPU is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trtllm_operator.api import gpus, versions
from trtllm_operator.api.llmengine import LLMEngineSpec, ModelFacts, Plan, ResolvedSource
from trtllm_operator.api.llmenginebuild import LLMEngineBuildSpec
from trtllm_operator.decide.input import Obj
from trtllm_operator.desired import claims, commands, enginebuild, names
from trtllm_operator.desired.config import Config
from trtllm_operator.desired.pods import GPU_PRODUCT_LABEL, node_selector

_MAJOR, _MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"


class Refused(ValueError):
    """What the spec asks for can't be done. `reason` is one of `api.reasons`; the message says what to change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Planned:
    """A build that can be made."""

    plan: Plan
    spec: LLMEngineBuildSpec
    key: str
    name: str
    checkpoint: str


def early(spec: LLMEngineSpec) -> versions.Recipe:
    """What can be refused before anything is looked up.

    Raises:
        Refused: the version or backend can't be served.
    """
    try:
        return versions.recipe(spec.runtime.version, spec.runtime.backend)
    except versions.VersionRefused as error:
        raise Refused(error.reason, str(error)) from error


def make(spec: LLMEngineSpec, resolved: ResolvedSource, nodes: Sequence[Obj] | None, config: Config) -> Planned:
    """The plan for a resolved source.

    Raises:
        Refused: the model, the GPUs and the spec don't go together.
    """
    recipe = early(spec)
    _check_model(spec, resolved.model)
    capability = compute_capability(spec, nodes) if recipe == "TensorRTEngine" else None
    _check_dtype(spec, capability)
    build = enginebuild.build_spec(spec, resolved, recipe, capability, config)
    key = enginebuild.key(build)
    source = build.source.dump()
    name, checkpoint = names.build_name(source, key), names.checkpoint_name(source)
    if recipe == "TensorRTEngine":
        try:
            commands.convert(build, checkpoint, "")
        except versions.VersionRefused as error:
            raise Refused(error.reason, str(error)) from error
    shared = spec.storage.claim_name
    engine_claim = (shared or name) if recipe == "TensorRTEngine" else None
    plan = Plan(
        recipe=recipe,
        image=build.runtime_image,
        compute_capability=capability,
        build_gpus=spec.build.workers if recipe == "TensorRTEngine" else 0,
        serve_gpus=spec.parallelism.world_size,
        checkpoint_claim=shared or checkpoint,
        checkpoint_size=claims.checkpoint_size(resolved.model, spec.storage),
        engine_claim=engine_claim,
        engine_size=claims.engine_size(resolved.model, spec.storage) if engine_claim else None,
    )
    return Planned(plan, build, key, name, checkpoint)


def compute_capability(spec: LLMEngineSpec, nodes: Sequence[Obj] | None) -> str:
    """As given, or by the product's table, or from the labels of the nodes that match.

    Raises:
        Refused: it can't be found out, or nodes with different GPUs match.
    """
    if spec.accelerator.compute_capability:
        return spec.accelerator.compute_capability
    if spec.accelerator.product and (known := gpus.compute_capability(spec.accelerator.product)):
        return known
    found: dict[str, set[str]] = {}
    selector = node_selector(spec.jobs.build, spec.accelerator)
    for node in nodes or ():
        labels = node["metadata"].get("labels", {})
        if all(labels.get(k) == v for k, v in selector.items()) and _MAJOR in labels:
            found.setdefault(f"{labels[_MAJOR]}.{labels.get(_MINOR, '0')}", set()).add(labels.get(GPU_PRODUCT_LABEL, "unknown"))
    if len(found) == 1:
        return next(iter(found))
    if found:
        seen = "; ".join(f"{capability} ({', '.join(sorted(products))})" for capability, products in sorted(found.items()))
        raise Refused(
            "ComputeCapabilityAmbiguous",
            f"nodes with different compute capabilities match, and an engine runs on the one that it was built for only: {seen}. "
            "Set accelerator.product to one of these products",
        )
    where = f"product {spec.accelerator.product} is not in the operator's table and " if spec.accelerator.product else ""
    why = "the operator may not read nodes" if nodes is None else "no matching node has the labels of GPU feature discovery"
    raise Refused(
        "ComputeCapabilityUnknown",
        f'the GPU\'s compute capability is not known: {where}{why}. Set accelerator.computeCapability, for example "9.0" for H100',
    )


def _check_model(spec: LLMEngineSpec, model: ModelFacts) -> None:
    tensor, pipeline = spec.parallelism.tensor, spec.parallelism.pipeline
    if model.attention_heads and model.attention_heads % tensor:
        raise Refused(
            "ParallelismMismatch",
            f"parallelism.tensor {tensor} does not divide the model's {model.attention_heads} attention heads. Choose a divisor",
        )
    if model.kv_heads and model.kv_heads % tensor and tensor % model.kv_heads:
        raise Refused(
            "ParallelismMismatch",
            f"parallelism.tensor {tensor} and the model's {model.kv_heads} key-value heads: one must divide the other. Choose another parallelism.tensor",
        )
    if model.layers and pipeline > model.layers:
        raise Refused("ParallelismMismatch", f"parallelism.pipeline {pipeline} exceeds the model's {model.layers} layers. Lower it")


def _check_dtype(spec: LLMEngineSpec, capability: str | None) -> None:
    if spec.precision.dtype == "bfloat16" and capability and float(capability) < 8.0:
        raise Refused(
            "UnsupportedDtype", f"precision.dtype bfloat16 needs compute capability 8.0 or newer, and the GPU has {capability}. Use float16"
        )
