"""LLMService: an OpenAI-compatible endpoint that serves the artifact of an LLMEngine."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trtllm_operator.api.base import Duration, Labels, Model, Quantity, Rule, ShortText, Text, remedy, rules
from trtllm_operator.api.common import Conditions, Digest, ImageSettings, LocalRef, Placement, PodSecurity

_Size = Annotated[int, Field(ge=1, le=16777216)]
_Parser = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        json_schema_extra=remedy("the name of a parser of trtllm-serve, such as deepseek-r1"),
    ),
]


class Serve(Model):
    """Options of trtllm-serve. What has no field goes into `options`."""

    served_model_name: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=128,
                pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$",
                json_schema_extra=remedy("the name of a model, such as llama or owner/llama"),
            ),
        ]
        | None
    ) = Field(None, description="Name of the model in requests; by default the name of the LLMEngine.")
    max_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    max_num_tokens: _Size | None = None
    max_seq_len: _Size | None = None
    kv_cache_free_gpu_memory_fraction: Annotated[float, Field(ge=0.01, le=1)] | None = None
    chunked_prefill: bool | None = None
    reasoning_parser: _Parser | None = None
    tool_parser: _Parser | None = None
    options: Annotated[dict[Annotated[str, Field(max_length=64)], Any], Field(max_length=64)] | None = Field(
        None,
        description="Keys of the extra LLM API options file, as the version knows them. Not for what has a field above. At most 64 KiB and 32 levels.",
    )


class Metric(Model):
    """One metric of the HorizontalPodAutoscaler."""

    type: Literal["resource", "pods"] = Field(
        description="`resource`: cpu or memory of the pods. `pods`: a custom metric, averaged over pods."
    )
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
            json_schema_extra=remedy("the name of a metric, such as cpu or trtllm_num_requests_waiting"),
        ),
    ]
    average_utilization: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Percent of the request; for `resource`.")
    average_value: Quantity | None = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "has(self.averageUtilization) != has(self.averageValue)",
                "a metric needs exactly one of averageUtilization and averageValue: give the target that the autoscaler shall hold",
            ),
            Rule(
                "self.type != 'pods' || has(self.averageValue)",
                "a metric of type pods needs averageValue: a utilisation exists for resources only",
            ),
            Rule(
                "self.type != 'resource' || self.name in ['cpu', 'memory']",
                "a metric of type resource must be named cpu or memory: use type pods for others",
            ),
        )
    }


class Autoscaling(Model):
    """Replicas by a HorizontalPodAutoscaler. They are then the autoscaler's alone."""

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    metrics: Annotated[list[Metric], Field(min_length=1, max_length=8)]
    scale_down_stabilization: Duration | None = Field(None, description="How long a lower need must last before pods are removed.")

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "self.minReplicas <= self.maxReplicas",
                "autoscaling.minReplicas must not exceed autoscaling.maxReplicas: raise maxReplicas or lower minReplicas",
            )
        )
    }


class Rollout(Model):
    """How a new artifact or option reaches the pods."""

    strategy: Literal["auto", "surge", "inPlace"] = Field(
        "auto",
        description="`surge` starts a new pod before an old one goes and needs spare GPUs; `inPlace` stops one first; "
        "`auto` surges, and changes to inPlace where the new pod can't be scheduled for want of GPUs.",
    )
    progress_deadline: Duration = Field("1h", description="Longest time without progress before the rollout counts as failed.")


class ServicePort(Model):
    """The Service in front of the pods."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000


class Expose(Model):
    """How requests reach the pods."""

    service: ServicePort = ServicePort()


class Availability(Model):
    """What happens when pods must go."""

    max_unavailable: Annotated[int, Field(ge=0, le=1000)] = Field(
        1, description="Pods that voluntary disruptions may take at once (PodDisruptionBudget)."
    )
    termination_grace_period: Duration = Field("5m", description="Longest time that a stopping pod may finish its requests.")
    startup_timeout: Duration | None = Field(
        None, description="Longest time that a pod may load the model; by default from the model's size."
    )


class NetworkPeer(Model):
    """Pods that may send requests."""

    namespace_labels: Labels | None = Field(None, description="Labels of the peers' namespace; absent: this namespace.")
    pod_labels: Labels | None = Field(None, description="Labels of the peers; absent: all pods of those namespaces.")

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "has(self.namespaceLabels) || has(self.podLabels)",
                "a client of networkPolicy needs namespaceLabels, podLabels or both: an empty one would admit nobody or everybody",
            )
        )
    }


class NetworkPolicySettings(Model):
    """Who may reach the pods, which themselves may reach nothing."""

    enabled: bool = True
    clients: Annotated[list[NetworkPeer], Field(max_length=32)] | None = Field(None, description="By default all pods of this namespace.")


class LLMServiceSpec(Model):
    engine_ref: LocalRef
    runtime: ImageSettings = Field(ImageSettings(), description="By default the image that the artifact was built with.")
    replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        None, description="Absent where autoscaling is set. Absent without autoscaling: one at first, then left as it is."
    )
    serve: Serve = Serve()
    autoscaling: Autoscaling | None = None
    rollout: Rollout = Rollout()
    expose: Expose = Expose()
    availability: Availability = Availability()
    network_policy: NetworkPolicySettings = NetworkPolicySettings()
    placement: Placement = Placement()
    pod_security: PodSecurity = PodSecurity()

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule(
                "!(has(self.replicas) && has(self.autoscaling))",
                "replicas can't be set together with autoscaling, which owns the number of pods: remove one of them",
                field_path=".replicas",
            )
        )
    }


class ServedRevision(Model):
    """One thing that is or was served."""

    engine_key: ShortText
    build: ShortText
    revision: ShortText | None = None
    digest: Digest | None = None
    template_hash: ShortText | None = Field(None, description="Of the pod template: artifact, image and options.")


class LLMServiceStatus(Model):
    observed_generation: int = 0
    conditions: Conditions = []
    url: Text | None = None
    model: ShortText | None = Field(None, description="Name of the model in requests.")
    replicas: int | None = None
    ready_replicas: int | None = None
    selector: Text | None = Field(None, description="Label selector of the pods, for the scale subresource.")
    current: ServedRevision | None = Field(None, description="What answers now.")
    target: ServedRevision | None = Field(None, description="What is being rolled out; equal to current when settled.")


class Kind:
    """Names of LLMService in the API."""

    kind: ClassVar[str] = "LLMService"
    plural: ClassVar[str] = "llmservices"
    short_name: ClassVar[str] = "llms"
