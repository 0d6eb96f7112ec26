"""Every name, label, annotation and path that the operator gives. Nothing else makes names."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

MANAGER = "trtllm-operator"  # field manager of everything we apply
REPLICAS_MANAGER = f"{MANAGER}-replicas"  # holds a Deployment's replicas while they pass from us to an autoscaler
DOMAIN = "trtllm.dev"

# Labels. Never copy labels of a resource to its children: Argo CD's tracking would prune what is kept.
MANAGED_BY = "app.kubernetes.io/managed-by"
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
ENGINE = f"{DOMAIN}/engine"
BUILD = f"{DOMAIN}/build"
SERVICE = f"{DOMAIN}/service"
STAGE = f"{DOMAIN}/stage"
CHECKPOINT = f"{DOMAIN}/checkpoint"

# Annotations.
DESIRED_HASH = f"{DOMAIN}/desired-hash"
ATTEMPT = f"{DOMAIN}/attempt"
INPUT = f"{DOMAIN}/input"
TEMPLATE_HASH = f"{DOMAIN}/template-hash"
OPTIONS_HASH = f"{DOMAIN}/options-hash"
ARTIFACT_DIGEST = f"{DOMAIN}/artifact-digest"
REPLICAS = f"{DOMAIN}/replicas"
STRATEGY = f"{DOMAIN}/rollout-strategy"
ENGINE_SETTINGS = f"{DOMAIN}/engine-settings"

# Paths in pods; described in operator/docs/stage-program.md.
TOOLS_PROGRAM = "/opt/trtllm-operator/stage.pyz"
TOOLS = "/tools"
STAGE_PROGRAM = f"{TOOLS}/stage.pyz"
SMOKE_PROGRAM = f"{TOOLS}/llmapi_smoke.py"
SCRATCH = "/scratch"
CHECKPOINTS = "/checkpoints"
ENGINES = "/engines"
SOURCE = "/source"
MODELS = "/models"
TOKENIZER = "/tokenizer"
OPTIONS = "/etc/trtllm-operator/options"

KEY_LENGTH = 10
_LABEL = 63

# `json.dumps` would make an encoder for each call. What was parsed from JSON has no cycles.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


def canonical(value: Any) -> bytes:
    """Canonical JSON: equal values give equal bytes, whatever the order of their keys."""
    return _CANONICAL.encode(value).encode()


def digest(value: Any) -> str:
    """SHA-256 in hex over canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def short(value: Any) -> str:
    """The part of a digest that goes into names: 10 hex characters, 40 bits."""
    return digest(value)[:KEY_LENGTH]


def slug(text: str, limit: int) -> str:
    """`text` as a DNS label of at most `limit` characters: `meta-llama/Llama-3.1-8B` -> `llama-3-1-8b` (after the slash only)."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.rsplit("/", 1)[-1].lower()).strip("-")
    return cleaned[:limit].strip("-") or "model"


def model_slug(source: dict[str, Any]) -> str:
    """Readable part of a build's name: the repository's, or the claim's path. 40 characters, so that `-<key>-publish-99` still fits a label."""
    return slug(source.get("repo") or source.get("path") or source.get("claimName") or "model", 36)


def build_name(source: dict[str, Any], key: str) -> str:
    """Name of an LLMEngineBuild and of its claim."""
    return f"{model_slug(source)}-{key[:KEY_LENGTH]}"


def checkpoint_name(source: dict[str, Any]) -> str:
    """Name of the claim and directory of a checkpoint: the same for every build from the same frozen source."""
    return f"{model_slug(source)}-src-{short(source)}"


def job_name(owner: str, stage: str, attempt: int, discriminator: str = "") -> str:
    """Name of a stage's Job. `discriminator` tells Jobs of one owner with different inputs apart. At most 63 characters."""
    tail = "-".join(part for part in (discriminator, stage, str(attempt)) if part)
    head = owner[: _LABEL - len(tail) - 1]
    if head != owner:  # a cut name must stay unique
        head = f"{owner[: _LABEL - len(tail) - 8]}-{short(owner)[:6]}"
    return f"{head}-{tail}"


def label_value(name: str) -> str:
    """A name as label value: names may have 253 characters, label values 63."""
    return name if len(name) <= _LABEL else f"{name[:52]}-{short(name)}"


def common_labels(component: str) -> dict[str, str]:
    """Labels of every object that the operator makes; the watches select by the first."""
    return {MANAGED_BY: MANAGER, PART_OF: MANAGER, COMPONENT: component}


def service_selector(service: str) -> dict[str, str]:
    """Labels that select the pods of an LLMService. They go into a Deployment's selector, which can't be changed: add nothing here."""
    return {COMPONENT: "server", SERVICE: label_value(service)}


def options_name(service: str, digest_: str) -> str:
    """Name of the ConfigMap with one state of serve.options; other options make another ConfigMap, so that old pods keep theirs."""
    return f"{service}-options-{digest_}"


def owner_manager(uid: str) -> str:
    """Field manager of one owner that applies a shared object with its own entry among the owners.

    With one manager for all, the second owner's apply would remove the first's entry.
    """
    return f"{MANAGER}-owner-{uid}"
