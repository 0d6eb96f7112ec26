"""LLMEngine: what model, in which form, for which GPU."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trtllm_operator.api.base import LabelValue, Model, Name, Quantity, Rule, ShortText, Text, remedy, rules
from trtllm_operator.api.common import (
    Artifact,
    Conditions,
    ImageSettings,
    JobSettings,
    PodSecurity,
    Progress,
    SecretKeyRef,
    Stages,
)

Pattern = Annotated[str, Field(min_length=1, max_length=256)]
Version = Annotated[
    str,
    Field(
        min_length=5,
        max_length=32,
        pattern=r"^[0-9]+\.[0-9]+\.[0-9]+(rc[0-9]+)?(\.post[0-9]+)?$",
        json_schema_extra=remedy("a version of TensorRT-LLM such as 1.2.1 or 1.3.0rc29"),
    ),
]


class HuggingFaceSource(Model):
    """A repository on the Hugging Face Hub, or on a mirror that speaks its protocol."""

    repo: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?$",
            json_schema_extra=remedy("a repository such as owner/name, without the Hub's address"),
        ),
    ] = Field(description="`owner/name`.")
    revision: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$",
            json_schema_extra=remedy("a branch, a tag or a commit, such as main"),
        ),
    ] = Field("main", description="Branch, tag or commit. It is resolved to a commit once and then frozen, until the source changes.")
    endpoint: (
        Annotated[
            str,
            Field(
                max_length=512, pattern=r"^https?://[^\s]+$", json_schema_extra=remedy("an address that starts with http:// or https://")
            ),
        ]
        | None
    ) = Field(None, description="Another server with the Hub's protocol, for example a mirror in an air-gapped cluster.")
    token_secret_ref: SecretKeyRef | None = Field(None, description="Secret with an access token, for gated and private models.")
    allow_patterns: Annotated[list[Pattern], Field(max_length=32)] | None = None
    ignore_patterns: Annotated[list[Pattern], Field(max_length=32)] | None = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "!self.repo.contains('..') && !self.repo.contains('--')",
                "repo must not contain '..' or '--': the Hub has no such names; write it as owner/name",
                field_path=".repo",
            ),
            Rule(
                "!self.revision.contains('..')",
                "revision must not contain '..': give a branch, a tag or a commit",
                field_path=".revision",
            ),
            Rule(
                "!has(self.endpoint) || !self.endpoint.contains('@')",
                "endpoint must not contain '@': a password in it would show in commands and statuses; name a Secret in tokenSecretRef instead",
                field_path=".endpoint",
            ),
        )
    }


class PVCSource(Model):
    """A checkpoint in Hugging Face layout on an existing claim. It is copied, so that what is built is frozen."""

    claim_name: Name = Field(description="PersistentVolumeClaim in this namespace.")
    path: Annotated[
        str,
        Field(
            max_length=512,
            pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*)?$",
            json_schema_extra=remedy(
                "a directory such as models/llama: from the root of the claim, without a slash at either end and without '..'"
            ),
        ),
    ] = Field("", description="Directory of the checkpoint, from the root of the claim.")


class Source(Model):
    """Where the model comes from: exactly one."""

    hugging_face: HuggingFaceSource | None = None
    pvc: PVCSource | None = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "has(self.huggingFace) != has(self.pvc)",
                "source must have exactly one of huggingFace and pvc: give the one that the model comes from",
            )
        )
    }


class Runtime(ImageSettings):
    """The version of TensorRT-LLM decides what can be built and how it is served."""

    version: Version = Field(description="Version of TensorRT-LLM in the image, for example `1.2.1`.")
    backend: Literal["auto", "tensorrt", "pytorch"] = Field(
        "auto", description="`tensorrt` builds an engine (versions that have trtllm-build); `pytorch` serves the checkpoint itself."
    )


class Precision(Model):
    """Number formats."""

    dtype: Literal["auto", "float16", "bfloat16"] = Field("auto", description="`auto` takes what the checkpoint says.")


class Parallelism(Model):
    """How a model is spread over GPUs. One replica needs tensor x pipeline GPUs on one node."""

    tensor: Annotated[int, Field(ge=1, le=16)] = 1
    pipeline: Annotated[int, Field(ge=1, le=16)] = 1

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "self.tensor * self.pipeline <= 16",
                "parallelism.tensor x parallelism.pipeline must be at most 16, the GPUs of one node: several nodes are not supported",
            )
        )
    }

    @property
    def world_size(self) -> int:
        """Ranks, and so the GPUs of one replica."""
        return self.tensor * self.pipeline


Switch = Literal["enable", "disable"]


class Plugins(Model):
    """Plugin options of trtllm-build that people set. Others go through `extraArgs`."""

    gemm: Literal["auto", "float16", "bfloat16", "disable"] | None = None
    gpt_attention: Literal["auto", "float16", "bfloat16", "disable"] | None = None
    nccl: Literal["auto", "float16", "bfloat16", "disable"] | None = None
    context_fmha: Switch | None = None
    remove_input_padding: Switch | None = None
    use_paged_context_fmha: Switch | None = None
    multiple_profiles: Switch | None = None
    reduce_fusion: Switch | None = None
    user_buffer: Switch | None = None
    tokens_per_block: Annotated[int, Field(ge=1, le=1024)] | None = None


class ExtraArg(Model):
    """One more flag of trtllm-build."""

    flag: Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^--[a-z][a-z0-9_]*$",
            json_schema_extra=remedy("one flag of trtllm-build, such as --profiling_verbosity; its value goes into value"),
        ),
    ] = Field(description="For example `--profiling_verbosity`.")
    value: Annotated[str, Field(max_length=256, pattern=r"^[^\x00]*$", json_schema_extra=remedy("text without NUL characters"))] | None = (
        Field(None, description="Absent for a flag without a value.")
    )


# What the operator sets itself, where a second value would silently win or lose, with its other names; and what loads code from a file.
OWN_BUILD_FLAGS = (
    "--checkpoint_dir", "--output_dir", "--max_batch_size", "--max_input_len", "--max_seq_len", "--max_num_tokens", "--max_beam_width",
    "--opt_num_tokens", "--workers", "--kv_cache_type", "--output_timing_cache", "--log_level", "--gemm_plugin", "--gpt_attention_plugin",
    "--nccl_plugin", "--context_fmha", "--remove_input_padding", "--use_paged_context_fmha", "--multiple_profiles", "--reduce_fusion",
    "--user_buffer", "--tokens_per_block", "--model_config", "--build_config",
    "--max_decoder_seq_len", "--model_cls_file", "--model_cls_name",
)  # fmt: skip

_Size = Annotated[int, Field(ge=1, le=16777216)]


class Build(Model):
    """Limits and options of a TensorRT engine. With the checkpoint recipe only the limits are used, when serving."""

    max_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    max_input_len: _Size | None = None
    max_seq_len: _Size | None = Field(None, description="Prompt and output together, in tokens.")
    max_num_tokens: _Size | None = Field(None, description="Tokens in one batch after padding is removed.")
    max_beam_width: Annotated[int, Field(ge=1, le=16)] | None = None
    opt_num_tokens: _Size | None = None
    kv_cache_type: Literal["continuous", "paged", "disabled"] | None = None
    plugins: Plugins | None = None
    workers: Annotated[int, Field(ge=1, le=16)] = Field(1, description="GPUs that the build uses; ranks are built in turn on them.")
    extra_args: Annotated[list[ExtraArg], Field(max_length=32)] | None = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "!has(self.maxInputLen) || !has(self.maxSeqLen) || self.maxInputLen <= self.maxSeqLen",
                "build.maxInputLen must not exceed build.maxSeqLen, which counts prompt and output together: raise maxSeqLen or lower maxInputLen",
            ),
            Rule(
                "!has(self.optNumTokens) || !has(self.maxNumTokens) || self.optNumTokens <= self.maxNumTokens",
                "build.optNumTokens must not exceed build.maxNumTokens: lower optNumTokens or leave it out",
            ),
            Rule(
                "!has(self.optNumTokens) || !has(self.plugins) || !has(self.plugins.multipleProfiles) || self.plugins.multipleProfiles != 'enable'",
                "build.optNumTokens can't be combined with build.plugins.multipleProfiles: enable, trtllm-build refuses it: leave one out",
            ),
            Rule(
                # argparse completes the beginning of a flag
                "!has(self.extraArgs) || self.extraArgs.all(a, !["
                + ", ".join(f"'{flag}'" for flag in OWN_BUILD_FLAGS)
                + "].exists(own, own.startsWith(a.flag)))",
                "build.extraArgs names a flag that the operator sets itself, the beginning of one, or one that loads code: "
                "use the field of that name in build, build.plugins or parallelism",
            ),
        )
    }


class Accelerator(Model):
    """Which GPUs."""

    product: LabelValue | None = Field(
        None, description="As in the node label nvidia.com/gpu.product, for example `NVIDIA-H100-80GB-HBM3`. Pods are placed by it."
    )
    compute_capability: (
        Annotated[
            str, Field(max_length=8, pattern=r"^[0-9]+\.[0-9]$", json_schema_extra=remedy("a compute capability such as 9.0, in quotes"))
        ]
        | None
    ) = Field(None, description="For example `9.0`. By default from the product, or from the labels of the nodes that match.")
    resource_name: Annotated[
        str,
        Field(
            max_length=253,
            pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
            json_schema_extra=remedy("the name of a resource of nodes, such as nvidia.com/gpu"),
        ),
    ] = "nvidia.com/gpu"


class Storage(Model):
    """Where checkpoints and engines are kept."""

    claim_name: Name | None = Field(
        None, description="Existing claim that holds everything, in directories. By default each artifact has its own."
    )
    storage_class_name: Name | None = None
    access_modes: (
        Annotated[list[Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]], Field(min_length=1, max_length=4)]
        | None
    ) = None
    size: Quantity | None = Field(None, description="Size of each claim, where the computed one does not fit.")

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "!has(self.claimName) || (!has(self.storageClassName) && !has(self.accessModes) && !has(self.size))",
                "storage.claimName can't be combined with storageClassName, accessModes or size, which belong to claims that the operator makes: remove them",
            )
        )
    }


class Verify(Model):
    """What must hold before an artifact is served."""

    smoke: bool = Field(True, description="Load the artifact through the LLM API on a GPU and generate a few tokens.")
    prompt: Annotated[
        str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00]*$", json_schema_extra=remedy("text without NUL characters"))
    ] = "The capital of France is"
    max_tokens: Annotated[int, Field(ge=1, le=256)] = 16


class Jobs(Model):
    """Settings of the stages' Jobs. `fetch` also holds for resolve and publish, which need no GPU either."""

    fetch: JobSettings = JobSettings()
    build: JobSettings = JobSettings()
    verify: JobSettings = JobSettings()


class LLMEngineSpec(Model):
    source: Source
    runtime: Runtime
    precision: Precision = Precision()
    parallelism: Parallelism = Parallelism()
    build: Build = Build()
    accelerator: Accelerator = Accelerator()
    storage: Storage = Storage()
    verify: Verify = Verify()
    jobs: Jobs = Jobs()
    pod_security: PodSecurity = PodSecurity()
    suspend: bool = Field(False, description="Start nothing new. What runs and what is built stays.")

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "!has(self.build) || !has(self.build.workers) || !has(self.parallelism) || "
                "self.build.workers <= self.parallelism.tensor * self.parallelism.pipeline",
                "build.workers must not exceed parallelism.tensor x parallelism.pipeline: more GPUs than ranks would stand idle; lower build.workers",
            )
        )
    }


class ModelFacts(Model):
    """What the resolve stage read from the model's configuration, without downloading weights."""

    architecture: ShortText = Field(description="`architectures[0]` of config.json.")
    dtype: ShortText | None = None
    bytes: int = Field(description="Bytes of the files that will be fetched.")
    files: int
    layers: int | None = None
    hidden_size: int | None = None
    attention_heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    max_position_embeddings: int | None = None


class ResolvedSource(Model):
    """The frozen source: made once for each content of spec.source."""

    source_hash: ShortText = Field(description="Of spec.source; while it is the same, nothing is resolved again.")
    revision: ShortText = Field(description="Commit, or digest of the files on a claim.")
    model: ModelFacts


class Plan(Model):
    """What will be done, before a GPU is spent."""

    recipe: Literal["TensorRTEngine", "HFCheckpoint"]
    image: Text
    compute_capability: ShortText | None = None
    build_gpus: int = 0
    serve_gpus: int = 1
    checkpoint_claim: ShortText
    checkpoint_size: ShortText
    engine_claim: ShortText | None = None
    engine_size: ShortText | None = None


class Verification(Model):
    """Result of the verify stage, for one artifact."""

    key: ShortText
    state: Literal["Succeeded", "Failed", "Skipped"]
    output: Text | None = Field(None, description="What the model said in the smoke test.")
    finished_at: ShortText | None = None


class LLMEngineStatus(Model):
    observed_generation: int = 0
    conditions: Conditions = []
    key: ShortText | None = Field(None, description="Of the build that the spec asks for.")
    build: ShortText | None = Field(None, description="Name of the LLMEngineBuild that the spec asks for.")
    revision: ShortText | None = None
    resolved: ResolvedSource | None = None
    plan: Plan | None = None
    progress: Progress | None = None
    stages: Stages = []
    artifact: Artifact | None = Field(
        None, description="The newest verified artifact; services serve it. A new one replaces it when verified."
    )
    verification: Verification | None = None


class Kind:
    """Names of LLMEngine in the API."""

    kind: ClassVar[str] = "LLMEngine"
    plural: ClassVar[str] = "llmengines"
    short_name: ClassVar[str] = "llme"
