"""Every reason that a condition, a stage or an event can carry: meaning, remedy, and whether trying again may help.

One line each in operator/docs/reasons.md, made from this table. The stage program knows its own subset by name only (it stands
alone); a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Retry = Literal["never", "counted", "free", "backoff"]


@dataclass(frozen=True)
class Reason:
    """`retry`: never = a person must act; counted = may pass, up to jobs.*.retries; free = not the work's fault, not counted;
    backoff = tried again for ever, ever more slowly (cheap stages only).
    """

    name: str
    meaning: str
    remedy: str
    retry: Retry = "never"
    passes: bool = False
    """With backoff: it usually passes by itself, so nobody is called (no Stalled)."""


_STATES: tuple[Reason, ...] = (
    Reason("Ready", "The resource is what its spec asks for.", "Nothing to do."),
    Reason("Succeeded", "The stage is done.", "Nothing to do."),
    Reason("Progressing", "Work is under way; the message says which.", "Wait."),
    Reason("Resolving", "The source is being looked up.", "Wait."),
    Reason("Fetching", "The checkpoint is being downloaded.", "Wait."),
    Reason("Building", "The engine is being built.", "Wait."),
    Reason("Publishing", "Files are being hashed and the manifest written.", "Wait."),
    Reason("Verifying", "The artifact is being tried on a GPU.", "Wait."),
    Reason("Retrying", "A stage failed in a way that may pass and will be tried again.", "Wait, or mend the cause that the message names."),
    Reason("Suspended", "spec.suspend is true: nothing new is started.", "Set spec.suspend to false."),
    Reason("WaitingForEngine", "The LLMEngine has no verified artifact yet.", "Wait, or look at the LLMEngine's conditions."),
    Reason("EngineNotFound", "The LLMEngine does not exist.", "Create it, or correct spec.engineRef.name. It goes on by itself."),
    Reason("EngineFailed", "The LLMEngine needs a person.", "Look at the LLMEngine's conditions."),
    Reason("WaitingForBuild", "The LLMEngineBuild is not done yet.", "Wait."),
    Reason("WaitingForVolume", "A claim can't be bound or mounted yet.", "Wait, or look at the claim that the message names."),
    Reason("WaitingForGPU", "Nodes with such GPUs exist, but they are in use.", "Wait, or free or add GPUs."),
    Reason("WaitingForPod", "A pod can't be scheduled or started yet, for the cause in the message.", "Mend the cause that the message names."),
    Reason("RollingOut", "New pods are being started.", "Wait."),
    Reason("ReplicasUnavailable", "Fewer pods are ready than wanted.", "Look at the pods that the message names."),
    Reason("ScaledToZero", "No replicas are wanted.", "Raise spec.replicas to serve again."),
    Reason("Available", "At least one pod answers.", "Nothing to do."),
    Reason("Unavailable", "No pod answers.", "Look at the other conditions."),
    Reason("EngineReady", "The LLMEngine has a verified artifact.", "Nothing to do."),
    Reason("RolledOut", "All pods run the wanted revision.", "Nothing to do."),
    Reason("ScalingFixed", "Replicas are fixed; no autoscaler is asked for.", "Nothing to do."),
    Reason("ScalingActive", "The HorizontalPodAutoscaler works.", "Nothing to do."),
    Reason("ScalingUnknown", "The HorizontalPodAutoscaler has not reported yet.", "Wait."),
    Reason("ScalingInactive", "The HorizontalPodAutoscaler can't compute replicas.", "Install what serves the metric (metrics-server, or an adapter for metrics of pods), or correct autoscaling.metrics."),
    Reason("Exposed", "The Service exists.", "Nothing to do."),
    Reason("NotExposed", "The Service does not exist yet.", "Wait."),
)  # fmt: skip
"""Of what is done, under way, or waits."""

_FAILURES: tuple[Reason, ...] = (
    # A person must act: spec.
    Reason("InvalidSpec", "The spec can't be understood.", "Correct the field that the message names."),
    Reason("UnsupportedVersion", "This version of TensorRT-LLM is not supported.", "Choose a version that the message names."),
    Reason("BackendNotAvailable", "The version does not have the backend that was asked for.", "Use another version, or backend: auto."),
    Reason("UnsupportedOption", "The version does not know an option that was set.", "Remove the option or use another version."),
    Reason("UnsupportedArchitecture", "The version can't handle this model architecture.", "Use another model or version, or backend: pytorch."),
    Reason("UnsupportedDtype", "The GPU or version can't handle the number format.", "Choose another precision.dtype."),
    Reason("ParallelismMismatch", "The model can't be split this way.", "Choose parallelism that divides heads and layers."),
    Reason("ComputeCapabilityUnknown", "The GPU's compute capability can't be found out.", "Set accelerator.computeCapability or accelerator.product."),
    Reason("ComputeCapabilityAmbiguous", "Nodes with different GPUs match.", "Set accelerator.product to one of those that the message names."),
    Reason("NameConflict", "An object of the needed name exists and belongs to somebody else.", "Rename the resource, or remove that object."),
    # A person must act: source.
    Reason("ModelAccessDenied", "The model is gated or private and the token, if any, does not open it.",
           "Accept the model's terms, then set source.huggingFace.tokenSecretRef to a Secret with a token that may read it.", "backoff"),
    Reason("ModelNotFound", "The repository does not exist, or is private and there is no token.", "Correct source.huggingFace.repo.", "backoff"),
    Reason("RevisionNotFound", "The repository has no such revision.", "Correct source.huggingFace.revision.", "backoff"),
    Reason("InvalidModel", "The files are not a checkpoint in Hugging Face layout, or hold what is not allowed.", "Use a repository with config.json and safetensors. A claim may be filled later: it goes on by itself.", "backoff"),
    Reason("SourceChanged", "The files differ from what was resolved.", "Keep the source unchanged, or change spec.source to resolve it again."),
    Reason("SourceClaimNotFound", "A claim that the spec names does not exist.", "Create it, or correct source.pvc.claimName or storage.claimName. It goes on by itself.", "free"),
    Reason("SecretNotFound", "A Secret or a key in it does not exist.", "Create it, or correct the field that names it, such as source.huggingFace.tokenSecretRef. It goes on by itself.", "free"),
    Reason("HubUnreachable", "The model hub does not answer.", "Check the network, proxy or source.huggingFace.endpoint.", "backoff", passes=True),
    # A person must act: resources.
    Reason("DiskFull", "The volume is too small.", "Set storage.size, or enlarge the claim that the message names."),
    Reason("VolumeNotWritable", "A pod may not write to its volume.", "Make the claim writable for the pod's user and group: see storage.accessModes, podSecurity and the storage's own rights."),
    Reason("HostOutOfMemory", "The container used more memory than its limit.", "Raise resources.limits.memory under jobs of the LLMEngine (a stage) or under placement of the LLMService (a server)."),
    Reason("GPUOutOfMemory", "The GPU's memory does not suffice.", "Lower build.maxBatchSize, maxNumTokens or maxSeqLen, or raise parallelism.tensor."),
    Reason("GPUProductNotFound", "No node has the GPU product that was asked for.", "Correct accelerator.product, or add such nodes. It goes on by itself."),
    Reason("InsufficientGPUs", "No node has as many GPUs as one pod needs.", "Lower parallelism or build.workers, or add larger nodes. It goes on by itself."),
    Reason("GPUMismatch", "The GPU of the node is not what was expected.", "Correct accelerator.product or computeCapability, or the node's labels."),
    Reason("GPUFailed", "A GPU broke down while it worked (memory error, lost from the bus).", "See the node's kernel log for Xid messages, and drain the node if it goes on.", "counted"),
    Reason("GPUNotFound", "The container sees no GPU.", "Check the device plugin and runtimeClassName.", "counted"),
    Reason("RuntimeVersionMismatch", "The image holds another version of TensorRT-LLM than runtime.version.", "Make runtime.version and runtime.image agree."),
    Reason("ToolNotFound", "The image lacks a program that its version should have.", "Use NVIDIA's image of runtime.version, or one made from it."),
    Reason("ImagePullFailed", "An image can't be pulled.", "Correct the image's name or runtime.imagePullSecrets. It goes on by itself.", "free"),
    Reason("PodRejected", "The API server refuses the pod, for example by quota or Pod Security.", "Raise the quota, or change the policy or the field that it names. It goes on by itself.", "free"),
    Reason("ApplyRefused", "The API server refuses an object that the operator makes.", "Raise the quota, change the policy, grant the right, or install the CRDs of this version, as the cause asks. It goes on by itself.", "free"),
    # Failures of the work.
    Reason("BuildFailed", "trtllm-build failed.", "Look at the message and the log of the pod that it names."),
    Reason("ConvertFailed", "convert_checkpoint.py failed.", "Look at the message and the log of the pod that it names."),
    Reason("BadOptions", "A program of TensorRT-LLM refused its options.", "Correct build or build.extraArgs."),
    Reason("NoEngineProduced", "trtllm-build ended without error but without a complete engine.", "Report it with the log of the pod; the image may be broken.", "counted"),
    Reason("EngineCorrupt", "A file of the artifact is not what the manifest says.", "Delete the LLMEngineBuild: it is built again."),
    Reason("EngineVersionMismatch", "The engine was built by another version than the one that loads it.", "Make runtime.image of service and engine agree."),
    Reason("VerifyFailed", "The artifact could not generate text.", "Look at the message and the log of the pod that it names."),
    Reason("NCCLInitFailed", "GPUs can't talk to each other.", "Check /dev/shm and the GPU interconnect of the node.", "counted"),
    Reason("MPISpawnFailed", "The image can't start its worker processes.", "Use another version of the image."),
    Reason("DeadlineExceeded", "The stage ran longer than activeDeadline.", "Raise activeDeadline of the stage under jobs of the LLMEngine."),
    Reason("Evicted", "The pod was evicted or its node went away.", "Nothing to do: it is tried again and not counted.", "free"),
    Reason("InternalError", "The stage failed in a way that is not known.", "Look at the log of the pod that the message names.", "counted"),
    Reason("ProgressDeadlineExceeded", "New pods did not become ready in time; the old ones go on serving.", "Look at the new pods, then correct the spec, or raise rollout.progressDeadline."),
)  # fmt: skip

"""Of what has failed or can't be done. Whether it is tried again is part of each."""

REASONS: dict[str, Reason] = {reason.name: reason for reason in (*_STATES, *_FAILURES)}
FAILURES = frozenset(reason.name for reason in _FAILURES)


def retry_of(name: str) -> Retry:
    """Retry rule of a reason; a reason that is not known may pass, so it is tried again and counted."""
    reason = REASONS.get(name)
    return reason.retry if reason else "counted"


def needs_person(name: str) -> bool:
    """Of a failure that is tried again for ever: must a person mend it all the same?"""
    reason = REASONS.get(name)
    return reason is not None and reason.retry == "backoff" and not reason.passes


def remedy_of(name: str) -> str:
    """What a person should do, as the end of a message; empty where the reason is not known."""
    reason = REASONS.get(name)
    return reason.remedy.replace(" that the message names", "") if reason else ""


def markdown() -> str:
    """The table as operator/docs/reasons.md; a test holds the file to it."""
    retries = {
        "never": "no: change something first",
        "counted": "yes, up to `retries`",
        "free": "yes, not counted",
        "backoff": "yes, ever more slowly",
    }
    states = "".join(f"| `{r.name}` | {r.meaning} | {r.remedy} |\n" for r in _STATES)
    failures = "".join(f"| `{r.name}` | {r.meaning} | {r.remedy} | {retries[r.retry]} |\n" for r in _FAILURES)
    return (
        "# Reasons\n\nEvery reason of a condition, a stage or an Event, made from `api/reasons.py` (`make docs`).\n\n"
        "## What is done, under way, or waits\n\n| reason | meaning | what to do |\n|---|---|---|\n"
        f"{states}\n"
        "## What has failed or can't be done\n\nThe last column says whether a failed stage is tried again by itself.\n\n"
        f"| reason | meaning | what to do | tried again |\n|---|---|---|---|\n{failures}"
    )
