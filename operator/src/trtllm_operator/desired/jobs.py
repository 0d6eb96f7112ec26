"""The Job of each stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trtllm_operator.api.base import seconds
from trtllm_operator.api.common import JobSettings, PodSecurity, StageName
from trtllm_operator.api.llmengine import Accelerator, LLMEngineSpec
from trtllm_operator.api.llmenginebuild import LLMEngineBuildSpec
from trtllm_operator.desired import names, pods, requests
from trtllm_operator.desired.config import Config
from trtllm_operator.desired.match import with_hash

CONTAINER = "stage"
_LONGEST_DEADLINE = 2**31 - 1  # seconds; of a pod, the API server takes no more
TTL_SECONDS = 24 * 3600  # results are in the status; Jobs stay a day for people who want to read logs

_CPU_DEFAULTS = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
_GPU_DEFAULTS = {"requests": {"cpu": "1", "memory": "4Gi"}}


@dataclass(frozen=True)
class Volume:
    """A claim in a pod."""

    name: str
    claim: str
    path: str
    read_only: bool = False


@dataclass(frozen=True)
class JobInput:
    """What one stage's Job is made from. Its hash, without the attempt, tells whether another attempt would be a different one."""

    namespace: str
    owner: Mapping[str, Any]
    owner_name: str
    stage: StageName
    request: Mapping[str, Any]
    settings: JobSettings
    security: PodSecurity
    accelerator: Accelerator
    spec: LLMEngineSpec
    labels: Mapping[str, str]
    volumes: Sequence[Volume] = ()
    image: str | None = None
    gpus: int = 0
    discriminator: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


def _token(spec: LLMEngineSpec, stage: StageName) -> list[dict[str, Any]]:
    """The hub token, only where it is needed. The pod reads the Secret; the operator never does."""
    hub = spec.source.hugging_face
    if stage not in ("resolve", "fetch") or hub is None or hub.token_secret_ref is None:
        return []
    reference = hub.token_secret_ref
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}]


def _environment(job: JobInput) -> list[dict[str, Any]]:
    if job.image is not None:
        return pods.environment(job.env)
    # Tools image: it talks to the hub, so it is not offline.
    home = f"{names.SCRATCH}/home"
    values = {
        "HOME": home,
        "HF_HOME": f"{names.SCRATCH}/cache/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return [{"name": name, "value": pods.literal(value)} for name, value in {**values, **job.env}.items()] + _token(job.spec, job.stage)


def argv(job: JobInput) -> list[str]:
    """Command of the main container, before Kubernetes' escaping."""
    program = names.STAGE_PROGRAM if job.image is not None else names.TOOLS_PROGRAM
    return ["python3", program, job.stage, "--request", json.dumps(job.request, separators=(",", ":"), ensure_ascii=False)]


def input_hash(job: JobInput, config: Config) -> str:
    """What an attempt is made from. Taken of attempt 0, so that attempts with equal inputs have equal hashes.

    Without the tools image: an upgrade of the operator brings another one, and is no reason to try on a GPU again what needs a person.
    """
    return names.short({"template": _template(job, replace(config, tools_image="")), "storage": job.spec.storage.dump()})


def tools_image_of(job: Mapping[str, Any]) -> str:
    """The tools image that an observed Job uses."""
    spec = job["spec"]["template"]["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    return str(containers[0].get("image"))


def job_object(job: JobInput, attempt: int, config: Config, made_from: str) -> dict[str, Any]:
    """The Job of one attempt. It runs one pod; only disruptions (eviction, drain, preemption) make another pod, uncounted.

    `made_from` is the hash of the input without the attempt, see `input_hash`.
    """
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]},
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": TTL_SECONDS,
        "template": _template(job, config),
    }
    return with_hash(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": names.job_name(job.owner_name, job.stage, attempt, job.discriminator),
                "namespace": job.namespace,
                "labels": {**names.common_labels(job.stage), **job.labels, names.STAGE: job.stage},
                "annotations": {names.ATTEMPT: str(attempt), names.INPUT: made_from},
                "ownerReferences": [dict(job.owner)],
            },
            "spec": spec,
        }
    )


def _template(job: JobInput, config: Config) -> dict[str, Any]:
    volumes, mounts = pods.scratch_volumes()
    for volume in job.volumes:
        entry: dict[str, Any] = {"claimName": volume.claim}
        # One pod may see one claim under two paths (storage.claimName), so volumes are by claim and mounts by path.
        if not any(v["name"] == volume.name for v in volumes):
            volumes.append({"name": volume.name, "persistentVolumeClaim": entry})
        mounts.append({"name": volume.name, "mountPath": volume.path, **({"readOnly": True} if volume.read_only else {})})
    init = []
    if job.image is not None:
        init = [pods.tools_init_container(config)]
        volumes.append({"name": "tools", "emptyDir": {}})
        mounts.append({"name": "tools", "mountPath": names.TOOLS, "readOnly": True})
        shared, shared_mounts = pods.shared_memory(job.gpus)
        volumes += shared
        mounts += shared_mounts
    runtime = job.spec.runtime
    # All stages of a build run as one user, because they share files; only TensorRT-LLM's image may need a writable root.
    security = job.security if job.image is not None else job.security.model_copy(update={"writable_root_filesystem": False})
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": job.image or config.tools_image,
        "imagePullPolicy": (runtime.image_pull_policy or "IfNotPresent") if job.image else config.tools_pull_policy,
        "command": [pods.literal(text) for text in argv(job)],
        "workingDir": names.SCRATCH,
        "env": _environment(job),
        "resources": pods.resources(
            job.settings, _GPU_DEFAULTS if job.gpus else _CPU_DEFAULTS, job.accelerator.resource_name if job.gpus else None, job.gpus
        ),
        "securityContext": pods.container_security_context(security),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    spec = pods.pod_spec(
        containers=[container],
        init_containers=init,
        volumes=volumes,
        security=security,
        placement=job.settings,
        accelerator=job.accelerator,
        images=runtime,
        restart_policy="Never",
        grace_period=30,
    )
    if job.settings.active_deadline:
        # Of the pod, not of the Job: a Job's time runs while its pod waits for a GPU, too. A longer one is a reason to try again.
        spec["activeDeadlineSeconds"] = min(max(1, seconds(job.settings.active_deadline)), _LONGEST_DEADLINE)
    return {"metadata": {"labels": {**names.common_labels(job.stage), **job.labels, names.STAGE: job.stage}}, "spec": spec}


def resolve_input(engine: Mapping[str, Any], spec: LLMEngineSpec, owner: Mapping[str, Any], discriminator: str) -> JobInput:
    """Resolve: without a volume, but for a source on a claim."""
    namespace, name = engine["metadata"]["namespace"], engine["metadata"]["name"]
    pvc = spec.source.pvc
    return JobInput(
        namespace=namespace,
        owner=owner,
        owner_name=name,
        stage="resolve",
        request=requests.resolve(spec, f"{namespace}/{name}"),
        settings=spec.jobs.fetch,
        security=spec.pod_security,
        accelerator=Accelerator() if pvc is None else spec.accelerator,
        spec=spec,
        labels={names.ENGINE: names.label_value(name)},
        volumes=(Volume("source", pvc.claim_name, names.SOURCE, read_only=True),) if pvc else (),
        discriminator=discriminator,
    )


@dataclass(frozen=True)
class BuildJobs:
    """Makes the inputs of a build's stages, for one build and the engine that lends it placement, storage and token."""

    namespace: str
    name: str
    key: str
    build: LLMEngineBuildSpec
    engine: LLMEngineSpec
    owner: Mapping[str, Any]
    checkpoint: str

    @property
    def resource(self) -> str:
        return f"{self.namespace}/{self.name}"

    def checkpoint_volume(self, *, read_only: bool) -> Volume:
        """The claim that holds the checkpoint."""
        shared = self.engine.storage.claim_name
        return Volume("storage" if shared else "checkpoint", shared or self.checkpoint, names.CHECKPOINTS, read_only and not shared)

    def engine_volume(self, *, read_only: bool) -> Volume:
        """The claim that holds the engine."""
        shared = self.engine.storage.claim_name
        return Volume("storage" if shared else "engine", shared or self.name, names.ENGINES, read_only and not shared)

    def _input(
        self, stage: StageName, request: Mapping[str, Any], settings: JobSettings, volumes: Sequence[Volume], **more: Any
    ) -> JobInput:
        return JobInput(
            namespace=self.namespace,
            owner=self.owner,
            owner_name=self.name,
            stage=stage,
            request=request,
            settings=settings,
            security=self.engine.pod_security,
            accelerator=self.engine.accelerator,
            spec=self.engine,
            labels={names.BUILD: names.label_value(self.name)},
            volumes=volumes,
            **more,
        )

    def fetch(self) -> JobInput:
        """Fetch carries the build's placement, so that a zonal volume is made where the GPUs are."""
        volumes = [self.checkpoint_volume(read_only=False)]
        if self.build.source.kind == "pvc":
            volumes.append(Volume("source", self.build.source.claim_name or "", names.SOURCE, read_only=True))
        settings = self.engine.jobs.fetch.model_copy(
            update={
                "node_selector": {**(self.engine.jobs.build.node_selector or {}), **(self.engine.jobs.fetch.node_selector or {})} or None
            }
        )
        return self._input("fetch", requests.fetch(self.build, self.resource, self.checkpoint), settings, volumes)

    def build_attempt(self, attempt: int) -> JobInput:
        """Build: the only long stage that holds GPUs, and as many as it has workers."""
        return self._input(
            "build",
            requests.build(self.build, self.resource, self.name, self.key, self.checkpoint, attempt),
            self.engine.jobs.build,
            [self.checkpoint_volume(read_only=True), self.engine_volume(read_only=False)],
            image=self.build.runtime_image,
            gpus=(self.build.build or self.engine.build).workers,
        )

    def publish(self) -> JobInput:
        """Publish hashes large files, without a GPU."""
        volumes = [self.checkpoint_volume(read_only=self.build.recipe == "TensorRTEngine")]
        if self.build.recipe == "TensorRTEngine":
            volumes.append(self.engine_volume(read_only=False))
        return self._input(
            "publish", requests.publish(self.build, self.resource, self.name, self.key, self.checkpoint), self.engine.jobs.fetch, volumes
        )

    def verify(self, engine_name: str, owner: Mapping[str, Any], digest: str) -> JobInput:
        """Verify belongs to the LLMEngine whose gates it checks, and to one artifact: one that is built again is verified again."""
        is_engine = self.build.recipe == "TensorRTEngine"
        return JobInput(
            namespace=self.namespace,
            owner=owner,
            owner_name=engine_name,
            stage="verify",
            request=requests.verify(
                self.build, self.engine.verify, f"{self.namespace}/{engine_name}", self.name, self.key, self.checkpoint, digest
            ),
            settings=self.engine.jobs.verify,
            security=self.engine.pod_security,
            accelerator=self.engine.accelerator,
            spec=self.engine,
            labels={names.ENGINE: names.label_value(engine_name)},
            volumes=[self.engine_volume(read_only=True)] if is_engine else [self.checkpoint_volume(read_only=True)],
            image=self.build.runtime_image,
            gpus=self.build.parallelism.world_size,
            discriminator=names.short([self.key, digest]),
        )
