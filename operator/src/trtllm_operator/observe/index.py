"""Under which terms an object is found. Terms are made here only, for the store and for those who look things up."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from trtllm_operator.desired import names
from trtllm_operator.observe.refs import BUILD, ROOTS, SERVICE, Obj, labels_of, nested, owners_of

ROOT_LABELS = {names.ENGINE: "LLMEngine", names.BUILD: "LLMEngineBuild", names.SERVICE: "LLMService"}
"""Label of a child -> kind of the root that it names."""

_LABELS = (*ROOT_LABELS, names.CHECKPOINT)


def owned_by(uid: str) -> Hashable:
    """Objects with this uid among their owners."""
    return ("owner", uid)


def labelled(label: str, namespace: str, value: str) -> Hashable:
    """Objects with one of our labels."""
    return ("label", label, namespace, value)


def in_namespace(kind: str, namespace: str) -> Hashable:
    """Objects of a kind in a namespace."""
    return ("kind", kind, namespace)


def root_labelled(kind: str, namespace: str, value: str) -> Hashable:
    """The root that a label's value names; long names are cut in labels."""
    return ("root", kind, namespace, value)


def services_of_engine(namespace: str, engine: str) -> Hashable:
    """LLMServices that refer to an LLMEngine."""
    return ("engineRef", namespace, engine)


def builds_from(namespace: str, checkpoint: str) -> Hashable:
    """LLMEngineBuilds that need one checkpoint."""
    return ("checkpoint", namespace, checkpoint)


def checkpoint_of(build: Obj) -> str | None:
    """Name of the checkpoint that a build needs; None where its source can't be read."""
    source = nested(build, "spec", "source")
    try:
        return names.checkpoint_name(dict(source))
    except (TypeError, ValueError, AttributeError):
        return None


def terms(obj: Obj) -> Iterator[Hashable]:
    """All terms of one object."""
    kind, metadata = obj["kind"], obj["metadata"]
    namespace = metadata.get("namespace") or ""
    yield in_namespace(kind, namespace)
    for owner in owners_of(obj):
        yield owned_by(str(owner.get("uid")))
    labels = labels_of(obj)
    for label in _LABELS:
        if label in labels:
            yield labelled(label, namespace, labels[label])
    if kind in ROOTS:
        yield root_labelled(kind, namespace, names.label_value(metadata["name"]))
    if kind == SERVICE and isinstance(engine := nested(obj, "spec", "engineRef", "name"), str):
        yield services_of_engine(namespace, engine)
    if kind == BUILD and (checkpoint := checkpoint_of(obj)) is not None:
        yield builds_from(namespace, checkpoint)
