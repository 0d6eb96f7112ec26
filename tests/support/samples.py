"""Resources for tests, as short as they can be."""

from __future__ import annotations

from typing import Any

API_VERSION = "trtllm.dev/v1alpha1"


def service(name: str, namespace: str, *, engine: str = "tiny", annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """An LLMService."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": API_VERSION, "kind": "LLMService", "metadata": metadata, "spec": {"engineRef": {"name": engine}, **spec}}


def engine(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """An LLMEngine from the Hub, for a GPU whose compute capability is given."""
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMEngine",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "source": {"huggingFace": {"repo": "tiny/llama"}},
            "runtime": {"version": "1.2.1"},
            "accelerator": {"computeCapability": "9.0"},
            **spec,
        },
    }


def condition(obj: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """A condition of an object; empty where it has none."""
    found: list[dict[str, Any]] = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((c for c in found if c["type"] == kind), {})


def is_ready(obj: dict[str, Any] | None) -> bool:
    """Whether Ready is True."""
    return condition(obj, "Ready").get("status") == "True"


def with_condition(obj: dict[str, Any] | None, kind: str, reason: str | None = None) -> dict[str, Any]:
    """The object if it has that condition (for that reason), else an empty one."""
    found = condition(obj, kind)
    return obj if obj is not None and found and (reason is None or found["reason"] == reason) else {}
