"""Types that more than one resource uses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trtllm_operator.api.base import (
    Duration,
    ImageRef,
    Labels,
    LabelValue,
    Model,
    Name,
    QualifiedName,
    Quantity,
    Rule,
    ShortText,
    Text,
    remedy,
    rules,
)

GROUP = "trtllm.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
UNSEEN_GENERATION = -1
"""`status.observedGeneration` before the operator's first visit, by the schema's default."""


class LocalRef(Model):
    """An object of the same namespace, by name."""

    name: Name


class SecretKeyRef(Model):
    """One key of a Secret in the same namespace. Only pods read it; the operator never does."""

    name: Name = Field(description="Name of the Secret, in the namespace of this resource.")
    key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[-._a-zA-Z0-9]+$",
            json_schema_extra=remedy("a key of a Secret: letters, digits, '-', '_' and '.'"),
        ),
    ] = Field("token", description="Key in the Secret.")


class Toleration(Model):
    """A toleration, as pods have it."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
                "a toleration needs key, or operator: Exists to tolerate every taint: give one of them",
            ),
            Rule(
                "!has(self.value) || self.value == '' || !has(self.operator) || self.operator == 'Equal'",
                "value of a toleration can't be combined with operator: Exists, which takes any value: remove one of them",
            ),
            Rule(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds needs effect: NoExecute, the only one that pods leave for: set it, or remove tolerationSeconds",
            ),
        ),
    }

    key: (
        Annotated[
            str,
            Field(
                max_length=316,
                pattern=r"^(([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$",
                json_schema_extra=remedy("the key of a taint, such as nvidia.com/gpu"),
            ),
        ]
        | None
    ) = None
    operator: Literal["Exists", "Equal"] | None = None
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=604800)] | None = None


ResourceMap = Annotated[
    dict[QualifiedName, Quantity],
    Field(max_length=16, json_schema_extra={"x-key-remedy": "the name of a resource, such as memory or example.com/device"}),
]


class ResourceRequirements(Model):
    """CPU, memory and other resources of a container. GPUs are set by the operator from parallelism and workers."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "!has(self.requests) || !self.requests.exists(k, k.endsWith('/gpu'))",
                "resources.requests must not name a GPU resource: the operator requests GPUs itself, from parallelism and build.workers; "
                "choose the resource's name in accelerator.resourceName",
            ),
            Rule(
                "!has(self.limits) || !self.limits.exists(k, k.endsWith('/gpu'))",
                "resources.limits must not name a GPU resource: the operator requests GPUs itself, from parallelism and build.workers; "
                "choose the resource's name in accelerator.resourceName",
            ),
        ),
    }

    requests: ResourceMap | None = None
    limits: ResourceMap | None = None


class Placement(Model):
    """Where pods run and what they get."""

    resources: ResourceRequirements | None = None
    node_selector: Labels | None = None
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = None
    priority_class_name: Name | None = None
    runtime_class_name: Name | None = None


class JobSettings(Placement):
    """Settings of one stage's Job."""

    active_deadline: Duration | None = Field(
        None, description="Longest time that the pod of one attempt may run, for example `6h`. Waiting for a GPU does not count."
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        2, description="Attempts after the first, for failures that may pass by themselves. Failures that need a person are never retried."
    )


class PodSecurity(Model):
    """Opt-outs from the `restricted` Pod Security profile, for runtime images that do not run under it."""

    run_as_user: Annotated[int, Field(ge=1, le=2147483647)] = Field(1000, description="User of the containers. Volumes get the same group.")
    run_as_root: bool = Field(False, description="Run as user 0. Namespaces that enforce `restricted` refuse such pods.")
    writable_root_filesystem: bool = Field(False, description="Give containers a writable root file system.")


class ImageSettings(Model):
    """Which image runs, and how it is pulled."""

    image: ImageRef | None = Field(None, description="Image of TensorRT-LLM; by default NVIDIA's release image of the version.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[list[LocalRef], Field(max_length=8)] | None = None


class Condition(Model):
    """A condition as in Kubernetes' API conventions."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    message: Annotated[str, Field(max_length=32768)] = ""
    observed_generation: int = 0
    last_transition_time: Annotated[str, Field(max_length=32)] = ""


Conditions = Annotated[
    list[Condition],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]


class Progress(Model):
    """How far the running stage is."""

    stage: ShortText
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    message: Text = ""
    eta: ShortText | None = Field(None, description="Estimated time left, for example `4m`.")


StageName = Literal["resolve", "fetch", "build", "publish", "verify"]
StageState = Literal["Pending", "Running", "Succeeded", "Failed", "Skipped"]


class Stage(Model):
    """What is known of one stage. Outlives its Job, which is removed after a while."""

    name: StageName
    state: StageState
    attempts: int = Field(0, description="Attempts that were started; evictions are not counted.")
    started_at: ShortText | None = None
    finished_at: ShortText | None = None
    gpu_seconds: int | None = Field(None, description="GPUs of the Jobs times the seconds that they ran, over all attempts.")
    input: ShortText | None = Field(
        None,
        description="Hash of what the newest attempt was made from. A change of it (more memory, a larger volume) is a reason to try again.",
    )
    reason: ShortText | None = None
    message: Text | None = None


Stages = Annotated[
    list[Stage], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]})
]

Digest = Annotated[str, Field(max_length=128)]


class Artifact(Model):
    """A published artifact: what its manifest says. It exists when the manifest does."""

    kind: Literal["TensorRTEngine", "HFCheckpoint"]
    key: ShortText
    build: ShortText = Field(description="Name of the LLMEngineBuild that made it.")
    claim_name: ShortText
    path: Text = Field(description="Directory of the model files, from the root of the claim.")
    tokenizer_path: Text | None = Field(None, description="Directory of tokenizer and configuration, where that is not `path`.")
    bytes: int = 0
    files: int = 0
    digest: Digest = Field("", description="SHA-256 of the manifest, `sha256:...`.")
    runtime_version: ShortText
    runtime_image: Text
    compute_capability: ShortText | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_seq_len: int | None = None
    max_batch_size: int | None = None


__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "Artifact",
    "Condition",
    "Conditions",
    "Digest",
    "ImageSettings",
    "JobSettings",
    "LocalRef",
    "Placement",
    "PodSecurity",
    "Progress",
    "ResourceRequirements",
    "SecretKeyRef",
    "Stage",
    "StageName",
    "StageState",
    "Stages",
    "Toleration",
]
