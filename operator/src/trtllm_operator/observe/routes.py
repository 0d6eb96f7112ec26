"""Which roots an observed change concerns. Wide is harmless (a pass that finds nothing to do writes nothing), narrow is a bug."""

from __future__ import annotations

from collections.abc import Iterator

from trtllm_operator.desired import names
from trtllm_operator.observe import index
from trtllm_operator.observe.refs import BUILD, ENGINE, ROOTS, SERVICE, Obj, Ref, labels_of, nested, owners_of, ready_status, ref_of, uid_of
from trtllm_operator.observe.store import Store


def roots_of(store: Store, obj: Obj, before: Obj | None = None) -> set[Ref]:
    """Keys of the roots that must look again after `obj` came, changed (it was `before`) or went."""
    if obj["kind"] == "Node":
        return set(_node(store, obj, before))
    if before is not None and obj["kind"] == BUILD and _told(before) == _told(obj):
        # Each of many services puts itself among the owners; what the others see of the build is as it was.
        return {ref_of(obj)} | (set(_owners(store, obj)) ^ set(_owners(store, before)))
    keys = set(_one(store, obj))
    if before is not None:
        keys.update(_one(store, before))  # an owner or label that was taken away concerns whom it named
    return keys


def _told(build: Obj) -> tuple[object, ...]:
    """All of a build that anyone but itself goes by."""
    metadata = build["metadata"]
    return (
        build.get("spec"),
        build.get("status"),
        *(metadata.get(key) for key in ("uid", "generation", "labels", "annotations", "deletionTimestamp")),
    )


def _one(store: Store, obj: Obj) -> Iterator[Ref]:
    ref = ref_of(obj)
    if ref.kind in ROOTS:
        yield ref
    yield from _owners(store, obj)
    if ref.kind == ENGINE:
        yield from (ref_of(service) for service in store.find(index.services_of_engine(ref.namespace, ref.name)))
        yield from (ref_of(build) for build in store.find(index.owned_by(uid_of(obj))) if build["kind"] == BUILD)
    elif ref.kind == BUILD:
        yield from _sharing(store, ref.namespace, index.checkpoint_of(obj))
    else:
        yield from _labelled(store, obj)


def _owners(store: Store, obj: Obj) -> Iterator[Ref]:
    namespace = obj["metadata"].get("namespace") or ""
    for owner in owners_of(obj):
        ref = Ref(str(owner.get("kind")), namespace, str(owner.get("name")))
        if ref.kind in ROOTS:
            yield ref
        elif ref.kind == "Job" and (job := store.get(ref)) is not None:
            yield from _owners(store, job)


def _labelled(store: Store, obj: Obj) -> Iterator[Ref]:
    namespace = obj["metadata"].get("namespace") or ""
    labels = labels_of(obj)
    for label, kind in index.ROOT_LABELS.items():
        if (value := labels.get(label)) is not None:
            yield from (ref_of(root) for root in store.find(index.root_labelled(kind, namespace, value)))
    yield from _sharing(store, namespace, labels.get(names.CHECKPOINT))


def _sharing(store: Store, namespace: str, checkpoint: str | None) -> Iterator[Ref]:
    if checkpoint is not None:
        yield from (ref_of(build) for build in store.find(index.builds_from(namespace, checkpoint)))


def _node(store: Store, node: Obj, before: Obj | None) -> Iterator[Ref]:
    """Nodes report often and matter seldom: to those that are not ready, when what pods are placed by has changed."""
    after = store.get(ref_of(node))
    if before is not None and after is not None and _placement(before) == _placement(node):
        return
    for kind in (ENGINE, BUILD, SERVICE):
        yield from (ref_of(root) for root in store.of_kind(kind) if ready_status(root) != "True")


def _placement(node: Obj) -> tuple[object, ...]:
    return (
        labels_of(node),
        nested(node, "status", "allocatable"),
        nested(node, "spec", "unschedulable") or False,
        nested(node, "spec", "taints") or [],
    )


def slim_node(node: Obj) -> Obj:
    """A node with only what decisions use: the rest (images, conditions, heartbeats) is most of its bytes."""
    metadata = {
        key: node["metadata"][key] for key in ("name", "uid", "resourceVersion", "labels", "creationTimestamp") if key in node["metadata"]
    }
    spec = {key: value for key in ("unschedulable", "taints") if (value := nested(node, "spec", key)) is not None}
    status = {key: value for key in ("allocatable", "capacity") if (value := nested(node, "status", key)) is not None}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}
