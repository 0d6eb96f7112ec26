"""The Deployment of an LLMService: trtllm-serve on the artifact of an LLMEngineBuild."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trtllm_operator.api import versions
from trtllm_operator.api.base import Model, Name, seconds
from trtllm_operator.api.common import Artifact, ImageSettings, LocalRef
from trtllm_operator.api.llmengine import Accelerator, LLMEngineSpec
from trtllm_operator.api.llmenginebuild import LLMEngineBuildSpec
from trtllm_operator.api.llmservice import LLMServiceSpec, Rollout
from trtllm_operator.desired import commands, names, pods
from trtllm_operator.desired.match import with_hash
from trtllm_operator.desired.options import options_hash
from trtllm_operator.desired.owners import owner_reference
from trtllm_operator.desired.service import PORT_NAME

CONTAINER = "server"

Strategy = Literal["surge", "inPlace"]
ReplicasMode = Literal["fixed", "autoscaled", "free"]

_DEFAULTS = {"requests": {"cpu": "1", "memory": "4Gi"}}
_DRAIN_SECONDS = 10
_MIN_READY_SECONDS = 5
_PROBE_PERIOD = 5
_SHORTEST_STARTUP = 1800
_LARGEST_INT = 2**31 - 1
_HISTORY = 2


class EngineSettings(Model):
    """What the LLMEngine lends to the pods that serve its artifact, beyond what the build says.

    Kept on the Deployment: an LLMEngine that is deleted, or changed and not yet built anew, must not move the pods that serve.
    """

    name: Name
    accelerator: Accelerator = Accelerator()
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: list[LocalRef] | None = None

    @classmethod
    def of(cls, name: str, spec: LLMEngineSpec) -> EngineSettings:
        """As the LLMEngine says now."""
        runtime = spec.runtime
        return cls(
            name=name,
            accelerator=spec.accelerator,
            image_pull_policy=runtime.image_pull_policy,
            image_pull_secrets=runtime.image_pull_secrets,
        )


@dataclass(frozen=True)
class Serving:
    """Everything that the pods of an LLMService are made from."""

    service: Mapping[str, Any]
    """The LLMService, for its identity."""
    spec: LLMServiceSpec
    build: LLMEngineBuildSpec
    artifact: Artifact
    engine: EngineSettings

    @property
    def namespace(self) -> str:
        return str(self.service["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.service["metadata"]["name"])

    @property
    def model(self) -> str:
        """Name of the model in requests."""
        return self.spec.serve.served_model_name or self.engine.name

    @property
    def image(self) -> str:
        return self.spec.runtime.image or self.artifact.runtime_image


def _model_path(serving: Serving) -> str:
    # Versions without an option for the name take the last component of this path.
    return f"{names.MODELS}/{serving.model.rsplit('/', 1)[-1]}"


def _tokenizer_path(artifact: Artifact) -> str | None:
    """On the claim; None where the model's own directory has the tokenizer."""
    if artifact.kind == "HFCheckpoint":
        return None
    return artifact.tokenizer_path or f"{artifact.path.rsplit('/', 1)[0]}/tokenizer"


def argv(serving: Serving) -> list[str]:
    """Command of the server, before Kubernetes' escaping.

    Raises:
        VersionRefused: an option that the version does not have.
    """
    model = _model_path(serving)
    return commands.serve(
        serving.build,
        serving.spec.serve,
        name=serving.model,
        model=model,
        tokenizer=names.TOKENIZER if _tokenizer_path(serving.artifact) else model,
        has_options_file=options_hash(serving.spec.serve) is not None,
    )


def startup_seconds(spec: LLMServiceSpec, model_bytes: int) -> int:
    """Longest time that a pod may load the model: 1.5 x (240 s + 12 s/GiB), measured on a 2B model, and never under half an hour.

    NVIDIA's own tests wait between 15 minutes and 2 hours.
    """
    if spec.availability.startup_timeout is not None:
        return _bounded(seconds(spec.availability.startup_timeout))
    return max(_SHORTEST_STARTUP, int(1.5 * (240 + 12 * model_bytes / 2**30)))


def deadline_seconds(rollout: Rollout, startup: int) -> int:
    """Longest time without progress. The default gives way to models that may load for longer; a value of the user's holds as it is."""
    wanted = _bounded(seconds(rollout.progress_deadline))
    if rollout.progress_deadline == Rollout.model_fields["progress_deadline"].default:
        wanted = max(wanted, startup + 600)
    return max(wanted, _MIN_READY_SECONDS + 1)  # the API server refuses less


def _bounded(value: int) -> int:
    return min(value, _LARGEST_INT - 600)


def _probes(serving: Serving) -> dict[str, Any]:
    def get(path: str, period: int, timeout: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": PORT_NAME, "scheme": "HTTP"},
            "periodSeconds": period,
            "timeoutSeconds": timeout,
            "failureThreshold": failures,
        }

    path = versions.row(serving.build.runtime_version).liveness_path
    startup = max(1, -(-startup_seconds(serving.spec, serving.artifact.bytes) // _PROBE_PERIOD))
    return {
        "startupProbe": get("/health", _PROBE_PERIOD, 5, startup),
        "readinessProbe": get("/health", _PROBE_PERIOD, 5, 3),
        # /health_generate is a real request that waits its turn: seldom, patient, and never the first to give up.
        "livenessProbe": get(path, 120, 60, 3) if path == "/health_generate" else get(path, 10, 10, 6),
    }


def _volumes(serving: Serving) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes, mounts = pods.scratch_volumes()
    shared, shared_mounts = pods.shared_memory(serving.build.parallelism.world_size)
    model = {"name": "model", "mountPath": _model_path(serving), "subPath": serving.artifact.path, "readOnly": True}
    volumes += [*shared, {"name": "model", "persistentVolumeClaim": {"claimName": serving.artifact.claim_name}}]
    mounts += [*shared_mounts, model]
    if (tokenizer := _tokenizer_path(serving.artifact)) is not None:
        mounts.append({"name": "model", "mountPath": names.TOKENIZER, "subPath": tokenizer, "readOnly": True})
    if (options := options_hash(serving.spec.serve)) is not None:
        volumes.append({"name": "options", "configMap": {"name": names.options_name(serving.name, options)}})
        mounts.append({"name": "options", "mountPath": names.OPTIONS, "readOnly": True})
    return volumes, mounts


def template(serving: Serving) -> dict[str, Any]:
    """The pod template, with its hash as annotation, by which the pods of a revision are known.

    Raises:
        VersionRefused: an option that the version does not have.
    """
    spec, runtime = serving.spec, serving.spec.runtime
    volumes, mounts = _volumes(serving)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": serving.image,
        "imagePullPolicy": runtime.image_pull_policy or serving.engine.image_pull_policy or "IfNotPresent",
        "command": [pods.literal(text) for text in argv(serving)],
        "workingDir": names.SCRATCH,
        "env": pods.environment(),
        "ports": [{"name": PORT_NAME, "containerPort": commands.PORT, "protocol": "TCP"}],
        "resources": pods.resources(
            spec.placement, _DEFAULTS, serving.engine.accelerator.resource_name, serving.build.parallelism.world_size
        ),
        **_probes(serving),
        # trtllm-serve stops accepting at SIGTERM; until then endpoints must have forgotten the pod.
        "lifecycle": {"preStop": {"sleep": {"seconds": _DRAIN_SECONDS}}},
        "securityContext": pods.container_security_context(spec.pod_security),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    pod = pods.pod_spec(
        containers=[container],
        volumes=volumes,
        security=spec.pod_security,
        placement=spec.placement,
        accelerator=serving.engine.accelerator,
        images=ImageSettings(image_pull_secrets=runtime.image_pull_secrets or serving.engine.image_pull_secrets),
        grace_period=_DRAIN_SECONDS + _bounded(seconds(spec.availability.termination_grace_period)),
    )
    # A process that is number 1 ignores SIGTERM until it has a handler, which trtllm-serve has only once the model is loaded. With the pause
    # container as number 1, a pod that still loads stops at once instead of after its whole grace period; MPI's orphans are reaped, too.
    pod["shareProcessNamespace"] = True
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names.service_selector(serving.name)},
        }
    ]
    annotations = {names.ARTIFACT_DIGEST: serving.artifact.digest}
    if (options := options_hash(spec.serve)) is not None:
        annotations[names.OPTIONS_HASH] = options
    metadata = {
        "labels": {
            **names.common_labels("server"),
            **names.service_selector(serving.name),
            names.BUILD: names.label_value(serving.artifact.build),
        },
        "annotations": annotations,
    }
    annotations[names.TEMPLATE_HASH] = names.short({"metadata": metadata, "spec": pod})
    return {"metadata": metadata, "spec": pod}


def template_hash(pod_or_template: Mapping[str, Any]) -> str:
    """Hash that a pod or a pod template carries; empty where it has none."""
    return str((pod_or_template.get("metadata", {}).get("annotations") or {}).get(names.TEMPLATE_HASH, ""))


def deployment(
    serving: Serving, pod_template: Mapping[str, Any], *, replicas: int | None, mode: ReplicasMode, strategy: Strategy
) -> dict[str, Any]:
    """The Deployment. Without `replicas` their number stays what it is, unless we are its only owner: see `decide.serving_replicas`."""
    surge = {"maxSurge": 1, "maxUnavailable": 0} if strategy == "surge" else {"maxSurge": 0, "maxUnavailable": 1}
    startup = startup_seconds(serving.spec, serving.artifact.bytes)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": names.service_selector(serving.name)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": surge},
        "minReadySeconds": _MIN_READY_SECONDS,
        "progressDeadlineSeconds": deadline_seconds(serving.spec.rollout, startup),
        "revisionHistoryLimit": _HISTORY,
        "template": dict(pod_template),
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return with_hash(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": serving.name,
                "namespace": serving.namespace,
                "labels": {**names.common_labels("server"), names.SERVICE: names.label_value(serving.name)},
                "annotations": {
                    names.REPLICAS: mode,
                    names.STRATEGY: strategy,
                    names.ENGINE_SETTINGS: names.canonical(serving.engine.dump()).decode(),
                },
                "ownerReferences": [owner_reference(serving.service, controller=True)],
            },
            "spec": spec,
        }
    )
