"""Verified engines without GPUs: one is brought there by the operator and a driver that plays Job controller and kubelet; others are copies."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.bench.bare import APPLY, MERGE, Bare
from tests.support.api import Api
from tests.support.flow import FACTS
from tests.support.samples import engine, is_ready
from tests.support.waiting import eventually
from trtllm_operator.desired import names
from trtllm_operator.kube.resources import BY_KIND

ENGINE = "tiny"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_KEPT = ("LLMEngineBuild", "PersistentVolumeClaim")
"""What outlives an engine's Jobs; owners before what they own."""


@dataclass(frozen=True)
class Model:
    """A verified engine and what belongs to it, as JSON texts in which uids and the namespace can be replaced."""

    namespace: str
    uids: dict[str, str]
    """`kind/name` -> uid, of the engine first."""
    objects: list[dict[str, Any]]


def bring_up(api: Api, namespace: str) -> Model:
    """Make an engine and play its cluster until it is verified. The operator must be running."""
    api.namespace(namespace)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
    api.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    api.create(engine(ENGINE, namespace))

    def ready() -> bool:
        for job in api.list("Job", namespace):
            if not job.get("status", {}).get("conditions"):
                _finish(api, job)
        return is_ready(api.find("LLMEngine", ENGINE, namespace))

    eventually(ready, what="the engine is verified", seconds=120, every=0.1)
    kept = [api.get("LLMEngine", ENGINE, namespace)]
    for kind in _KEPT:
        kept += [{"apiVersion": BY_KIND[kind].api_version, "kind": kind, **found} for found in api.list(kind, namespace)]
    uids = {f"{obj['kind']}/{obj['metadata']['name']}": obj["metadata"]["uid"] for obj in kept}
    return Model(namespace, uids, kept)


def _finish(api: Api, job: dict[str, Any]) -> None:
    """A pod that has ended well with the stage program's report, then the Job's own end."""
    metadata, namespace = job["metadata"], job["metadata"]["namespace"]
    stage, now = metadata["labels"][names.STAGE], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    template = job["spec"]["template"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
    pod = f"{metadata['name']}-x"
    api.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": namespace, "labels": template["metadata"]["labels"], "ownerReferences": [owner]},
            "spec": template["spec"],
        }
    )
    said = json.dumps({"ok": True, "stage": stage, "facts": FACTS[stage]})
    end = {"exitCode": 0, "reason": "Completed", "message": said, "startedAt": now, "finishedAt": now}
    container = template["spec"]["containers"][0]
    shown = {"name": container["name"], "image": container["image"], "imageID": "bench", "ready": False, "restartCount": 0}
    status = {"phase": "Succeeded", "startTime": now, "containerStatuses": [{**shown, "state": {"terminated": end}}]}
    api.patch("Pod", pod, {"status": status}, namespace, "status")
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("SuccessCriteriaMet", "Complete")]
    over = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions}
    api.patch("Job", metadata["name"], {"status": over}, namespace, "status")


async def copy(bare: Bare, model: Model, namespace: str) -> dict[str, str]:
    """Make the same in another namespace; returns old uid -> new uid. No operator may be running: it would begin to build.

    What hangs on uids (the hash of the desired claim) is put right by the operator's first pass.
    """
    await bare.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    known: dict[str, str] = {}

    def renamed(obj: object) -> Any:
        text = json.dumps(obj).replace(model.namespace, namespace)
        for old, new in known.items():
            text = text.replace(old, new)
        return json.loads(text)

    for obj in model.objects:
        copied = renamed({key: value for key, value in _bare(obj).items() if key != "status"})
        owners = [owner["uid"] for owner in copied["metadata"].get("ownerReferences", ()) if not owner.get("controller")]
        manager = names.owner_manager(owners[0]) if owners else names.MANAGER
        made = await bare.json("PATCH", _path(obj, namespace, manager), copied, APPLY)
        known[obj["metadata"]["uid"]] = made["metadata"]["uid"]
    # An artifact is worth nothing if its claim is younger.
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for obj in model.objects:
        if obj["kind"] == "PersistentVolumeClaim":
            continue
        head = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": {"name": obj["metadata"]["name"]}}
        status = json.loads(_TIME.sub(now, json.dumps(renamed(obj["status"]))))
        await bare.request("PATCH", _path(obj, namespace, names.MANAGER, "status"), {**head, "status": status}, APPLY)
    return known


def _path(obj: dict[str, Any], namespace: str, manager: str, subresource: str | None = None) -> str:
    path = BY_KIND[obj["kind"]].path(namespace, obj["metadata"]["name"], subresource)
    return f"{path}?fieldManager={manager}&force=true"


async def let_claims_go(bare: Bare, namespace: str) -> None:
    """Take the finalizers of claims away, which a controller would do."""
    path = BY_KIND["PersistentVolumeClaim"].path(namespace)
    for claim in (await bare.json("GET", path))["items"]:
        await bare.request("PATCH", f"{path}/{claim['metadata']['name']}", {"metadata": {"finalizers": None}}, MERGE)


def _bare(obj: dict[str, Any]) -> dict[str, Any]:
    """Without what the API server gave it."""
    metadata = obj["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations", "ownerReferences") if metadata.get(key)}
    return {**obj, "metadata": kept}
