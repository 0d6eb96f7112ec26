"""LLMEngineBuild: one build with everything resolved, as a ReplicaSet is to a Deployment. Made by the operator, never by a user.

Its spec is immutable and is exactly what the key is made of, so equal wishes meet at the same object. What is not part of the key
(placement, storage class, token) comes from the LLMEngines that own it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trtllm_operator.api.base import ImageRef, Model, Rule, ShortText, Text, rules
from trtllm_operator.api.common import Artifact, Conditions, Progress, Stages
from trtllm_operator.api.llmengine import Build, ModelFacts, Parallelism, Pattern, Precision, Version


class FrozenSource(Model):
    """A source with its revision resolved. `kind` says which fields are there."""

    kind: Literal["huggingFace", "pvc"]
    repo: ShortText | None = None
    endpoint: Text | None = None
    allow_patterns: list[Pattern] | None = Field(None, max_length=32)
    ignore_patterns: list[Pattern] | None = Field(None, max_length=32)
    claim_name: ShortText | None = None
    path: Text | None = None
    revision: ShortText = Field(description="Commit, or digest of the files on a claim.")


class LLMEngineBuildSpec(Model):
    source: FrozenSource
    model: ModelFacts
    recipe: Literal["TensorRTEngine", "HFCheckpoint"]
    runtime_version: Version
    runtime_image: ImageRef
    precision: Precision
    parallelism: Parallelism
    build: Build | None = Field(None, description="With the HFCheckpoint recipe, which builds nothing, only the limits.")
    compute_capability: ShortText | None = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            Rule("self == oldSelf", "spec of an LLMEngineBuild is immutable: change the LLMEngine, and a new build is made for it"),
        )
    }


class LLMEngineBuildStatus(Model):
    observed_generation: int = 0
    conditions: Conditions = []
    progress: Progress | None = None
    stages: Stages = []
    artifact: Artifact | None = None


class Kind:
    """Names of LLMEngineBuild in the API."""

    kind: ClassVar[str] = "LLMEngineBuild"
    plural: ClassVar[str] = "llmenginebuilds"
    short_name: ClassVar[str] = "llmeb"
