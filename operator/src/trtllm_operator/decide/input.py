"""What a decision is made from: one frozen value per root kind, filled by `observe.gather`. Objects are plain JSON as the API server gave them.

Nothing here is remembered between passes: two passes over the same input give the same decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trtllm_operator.desired.config import Config

Obj = Mapping[str, Any]


@dataclass(frozen=True)
class Hints:
    """What only extra reads can tell, and only for pods and Jobs that have not finished. May lag; absent is normal."""

    progress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Pod uid -> newest `trtllm-progress` line of its log."""

    warnings: Mapping[str, str] = field(default_factory=dict)
    """uid of a Job or pod -> message of its newest Warning event, for those that hang without a pod or before their first container."""


@dataclass(frozen=True)
class EngineInput:
    """Around one LLMEngine."""

    engine: Obj
    config: Config
    now: datetime
    jobs: tuple[Obj, ...] = ()
    """Jobs that the engine owns: resolve and verify."""
    pods: tuple[Obj, ...] = ()
    """Pods of those Jobs."""
    builds: Mapping[str, Obj] = field(default_factory=dict)
    """All LLMEngineBuilds of the namespace, by name."""
    nodes: tuple[Obj, ...] | None = None
    """Nodes, or None where the operator may not read them."""
    hints: Hints = field(default_factory=Hints)


@dataclass(frozen=True)
class BuildInput:
    """Around one LLMEngineBuild."""

    build: Obj
    config: Config
    now: datetime
    engines: tuple[Obj, ...] = ()
    """LLMEngines that own it, oldest first. The first one's placement, storage and token are used."""
    jobs: tuple[Obj, ...] = ()
    """Jobs that the build owns: fetch, build, publish."""
    pods: tuple[Obj, ...] = ()
    """Pods of those Jobs."""
    claims: Mapping[str, Obj] = field(default_factory=dict)
    """Our claims in the namespace (checkpoints and engines), by name."""
    fetching: tuple[Obj, ...] = ()
    """Fetch Jobs of other builds that fill the same checkpoint claim."""
    nodes: tuple[Obj, ...] | None = None
    hints: Hints = field(default_factory=Hints)


@dataclass(frozen=True)
class ServiceInput:
    """Around one LLMService."""

    service: Obj
    config: Config
    now: datetime
    engine: Obj | None = None
    """The LLMEngine of spec.engineRef, where it exists."""
    builds: Mapping[str, Obj] = field(default_factory=dict)
    """All LLMEngineBuilds of the namespace, by name."""
    children: tuple[Obj, ...] = ()
    """Objects that the service owns: Deployment, Service, ConfigMaps, PodDisruptionBudget, NetworkPolicy, HorizontalPodAutoscaler."""
    pods: tuple[Obj, ...] = ()
    """Pods of the Deployment."""
    foreign: tuple[Obj, ...] = ()
    """Objects with the names that our children would have, which belong to somebody else (known after a refused apply)."""
    nodes: tuple[Obj, ...] | None = None
    hints: Hints = field(default_factory=Hints)
