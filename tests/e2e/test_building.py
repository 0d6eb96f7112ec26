"""Builds: interrupted, shared, failing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.demo.install import SYSTEM
from tests.e2e.conftest import DISTURBED, GPUS, PATIENCE, Space, engine
from tests.e2e.disturb import OPERATOR
from tests.support.kubectl import condition


def test_operator_deleted_in_mid_build(space: Space) -> None:
    """Fault 1. All of its pods at a time, so that nobody takes over at once."""
    space.apply(engine("llama", repo="demo/slow-llama"))

    def building() -> dict[str, Any] | None:
        jobs = space.jobs("build")
        return jobs[0] if jobs and jobs[0].get("status", {}).get("active") else None

    job = space.kubectl.wait("a build under way", building, 120 * PATIENCE)
    said = space.kubectl.within(SYSTEM)("delete", "pod", f"--selector={OPERATOR}", "--wait=true")
    assert "deleted" in said
    built = space.ready("llmengine", "llama")
    assert [j["metadata"]["uid"] for j in space.jobs("build")] == [job["metadata"]["uid"]], "one build only"
    assert next(s for s in built["status"]["stages"] if s["name"] == "build")["attempts"] == 1


def test_equal_inputs_are_built_once(space: Space) -> None:
    """Fault 30."""
    space.apply(engine("one"), engine("two"))
    one, two = space.ready("llmengine", "one"), space.ready("llmengine", "two")
    assert one["status"]["key"] == two["status"]["key"]
    assert len(space.jobs("build")) == 1
    assert len(space.jobs("fetch")) == 1
    builds = space.kubectl.get("llmenginebuild")["items"]
    assert len(builds) == 1
    assert {ref["name"] for ref in builds[0]["metadata"]["ownerReferences"]} == {"one", "two"}
    space.kubectl("delete", "llmengine", "one")
    space.kubectl.wait("one owner less", lambda: True if len(space.kubectl.get("llmenginebuild")["items"]) == 1 else None)
    space.ready("llmengine", "two")
    space.kubectl("delete", "llmengine", "two")
    space.kubectl.wait("the build goes with its last owner", lambda: True if not space.kubectl.get("llmenginebuild")["items"] else None)
    space.kubectl.wait("its claims go, too", lambda: True if not space.kubectl.get("pvc")["items"] else None)


def test_progress_reaches_the_status(space: Space) -> None:
    # Each rank takes its time. Where the operator is killed again and again, there is more of it to be seen in.
    space.apply(engine("llama", repo="demo/slow-llama", parallelism={"tensor": 2 if DISTURBED else 1}))

    def halfway() -> dict[str, Any] | None:
        progress: dict[str, Any] = space.kubectl.get("llmengine", "llama").get("status", {}).get("progress", {})
        return progress if progress.get("stage") == "build" and 0 < progress.get("percent", 0) < 100 else None

    assert space.kubectl.wait("percent of the build", halfway, 180 * PATIENCE)["message"]


CASES = {
    "gated": (engine("gated", repo="demo/gated-llama"), "ModelAccessDenied", ["demo/gated-llama", "tokenSecretRef"]),
    "unknown-repo": (engine("unknown-repo", repo="demo/nothing-here"), "ModelNotFound", ["demo/nothing-here"]),
    "unknown-revision": (engine("unknown-revision", hub={"revision": "v999"}), "RevisionNotFound", ["v999"]),
    "no-model": (engine("no-model", repo="demo/not-a-model"), "InvalidModel", ["demo/not-a-model"]),
    "disk-full": (engine("disk-full", repo="demo/huge-llama"), "DiskFull", ["storage.size"]),
    "wrong-gpu": (
        engine("wrong-gpu", accelerator={"product": "NVIDIA-B200", "computeCapability": "10.0"}),
        "GPUProductNotFound", ["NVIDIA-B200", "NVIDIA-H100-80GB-HBM3"],
    ),
    "bad-split": (
        engine("bad-split", parallelism={"tensor": 4, "pipeline": 4}, build={"workers": 16}),
        "ParallelismMismatch", ["parallelism.pipeline"],
    ),
    "no-trtllm-build": (engine("no-trtllm-build", version="1.3.0rc29", runtime={"backend": "tensorrt"}), "BackendNotAvailable", ["1.2.1"]),
    "no-image": (engine("no-image", runtime={"image": "trtllm-operator/none:0", "imagePullPolicy": "Never"}), "ImagePullFailed", ["trtllm-operator/none:0"]),
    "gpu-memory": (engine("gpu-memory", repo="demo/broken-build-gpu-oom"), "GPUOutOfMemory", []),
    "wrong-capability": (engine("wrong-capability", accelerator={"computeCapability": "8.9"}), "GPUMismatch", ["8.9", "9.0"]),
}  # fmt: skip


def test_each_bad_input_has_its_own_reason_and_the_good_one_goes_on(space: Space) -> None:
    """Faults 25, 26, 27 and 35. All at once: none of them may keep the good one from getting ready."""
    no_secret = engine("no-secret", repo="demo/gated-llama", hub={"tokenSecretRef": {"name": "hub-token"}})
    space.apply(*(case[0] for case in CASES.values()), no_secret, engine("good"))
    for name, (_, reason, words) in CASES.items():
        found = space.reason("llmengine", name, reason, 180)
        assert found["status"] == "False", name
        assert condition(space.kubectl.get("llmengine", name), "Stalled")["reason"] == reason
        missing = [word for word in words if word not in found["message"]]
        assert not missing, f"{name}: {found['message']}"
    space.ready("llmengine", "good")
    # A user error never burns a second attempt.
    assert [j["metadata"]["name"] for j in space.jobs("build") if "gpu-oom" in j["metadata"]["name"]].__len__() == 1
    # A missing Secret is waited for, and when it appears, it goes on by itself.
    waiting = space.reason("llmengine", "no-secret", "SecretNotFound")
    assert waiting["status"] == "Unknown"
    assert "hub-token" in waiting["message"]
    space.kubectl("create", "secret", "generic", "hub-token", "--from-literal=token=hf_demo_token")
    space.ready("llmengine", "no-secret")


@pytest.mark.parametrize("gpus", [2])
def test_more_gpus_than_any_node_has(space: Space, gpus: int) -> None:
    from tests.cluster.gpus import Gpus  # noqa: PLC0415
    from tests.cluster.kind import Cluster  # noqa: PLC0415

    node = space.kubectl.get("nodes")["items"][0]["metadata"]["name"]
    target = Cluster(node.removesuffix("-control-plane"))
    target.set_gpus(Gpus(count=gpus // 2))
    try:
        space.apply(engine("llama", parallelism={"tensor": gpus}, build={"workers": gpus}))
        found = space.reason("llmengine", "llama", "InsufficientGPUs")
        assert f"{gpus} of nvidia.com/gpu" in found["message"]
    finally:
        target.set_gpus(Gpus(count=GPUS))
    space.ready("llmengine", "llama")


FILL = """
import pathlib
from model_hub.tiny_llama import files
for name, content in files.repository(2).items():
    path = pathlib.Path("/data/models/tiny", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
"""


def test_model_on_a_claim_is_copied_and_frozen(space: Space) -> None:
    """Fault 35."""
    source = {"pvc": {"claimName": "models", "path": "models/tiny"}}
    space.apply(engine("llama", source=source))
    waiting = space.reason("llmengine", "llama", "SourceClaimNotFound")
    assert "models" in waiting["message"]
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "fill"},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "fill",
                        "image": "trtllm-operator/hub:dev",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python3", "-c", FILL],
                        "securityContext": secure,
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "models"}}],
            },
        },
    )
    built = space.ready("llmengine", "llama")
    assert built["status"]["artifact"]["kind"] == "TensorRTEngine"
    assert len(built["status"]["revision"]) == 64, "the digest of the files"
    claims = {claim["metadata"]["name"] for claim in space.kubectl.get("pvc")["items"]}
    assert built["status"]["plan"]["checkpointClaim"] in claims - {"models"}
