"""The CustomResourceDefinition of each kind: names, columns, subresources, and rules about the object's own name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from trtllm_operator.api import llmengine, llmenginebuild, llmservice
from trtllm_operator.api.base import Model, Rule
from trtllm_operator.api.common import GROUP, UNSEEN_GENERATION, VERSION
from trtllm_operator.api.crdgen.schema import Schema, structural

CATEGORY = "trtllm"
"""`kubectl get trtllm` shows all three kinds. Not `all`: `kubectl delete all --all` shall not take engines that cost GPU hours."""

UNSEEN: dict[str, int] = {"observedGeneration": UNSEEN_GENERATION}
"""Status before the operator's first visit. Without it, kstatus takes a resource without conditions for settled, and tools don't wait."""


class Kind(Protocol):
    """Names of a kind, as the modules of the kinds have them."""

    kind: ClassVar[str]
    plural: ClassVar[str]
    short_name: ClassVar[str]


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def document(self) -> dict[str, Any]:
        shown = {"name": self.name, "type": self.type, "description": self.description, "jsonPath": self.path}
        return {**shown, "priority": 1} if self.wide else shown


@dataclass(frozen=True)
class Definition:
    """What makes up the definition of one kind."""

    names: type[Kind]
    description: str
    spec: type[Model]
    status: type[Model]
    columns: Sequence[Column]
    rules: Sequence[Rule] = ()
    scale: bool = False

    @property
    def name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.names.plural}.{GROUP}"

    @property
    def file_name(self) -> str:
        return f"{self.name}.yaml"

    def schema(self) -> Schema:
        """The structural schema of the whole object."""
        schema: Schema = {
            "description": self.description,
            "type": "object",
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string", "maxLength": 64},
                "kind": {"type": "string", "maxLength": 64},
                "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
                "spec": {"description": "What is wanted."} | structural(self.spec, defaults=True),
                "status": {"description": "What is. Written by the operator.", "default": dict(UNSEEN)}
                | structural(self.status, defaults=False),
            },
        }
        if self.rules:
            schema["x-kubernetes-validations"] = [dict(rule) for rule in self.rules]
        return schema

    def document(self) -> dict[str, Any]:
        """The CustomResourceDefinition."""
        kind = self.names.kind
        subresources: dict[str, Any] = {"status": {}}
        if self.scale:
            subresources["scale"] = {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            }
        version = {
            "name": VERSION,
            "served": True,
            "storage": True,
            "subresources": subresources,
            "additionalPrinterColumns": [column.document() for column in self.columns],
            "schema": {"openAPIV3Schema": self.schema()},
        }
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": self.name, "labels": {"app.kubernetes.io/part-of": "trtllm-operator"}},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": kind,
                    "listKind": f"{kind}List",
                    "plural": self.names.plural,
                    "singular": kind.lower(),
                    "shortNames": [self.names.short_name],
                    "categories": [CATEGORY],
                },
                "versions": [version],
            },
        }


def _condition(kind: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{part}'


_READY = Column("Ready", _condition("Ready", "status"), "Whether it is what its spec asks for; Unknown while work is under way.")
_REASON = Column("Reason", _condition("Ready", "reason"), "Why it is ready or not; each reason is documented with its remedy.")
_MESSAGE = Column("Message", _condition("Ready", "message"), "Cause and next step.", wide=True)
_STAGE = Column("Stage", ".status.progress.stage", "The stage that runs now.")
_PERCENT = Column("Progress %", ".status.progress.percent", "How much of the running stage is done.", "integer")
_AGE = Column("Age", ".metadata.creationTimestamp", "Time since it was made.", "date")

DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        names=llmengine.Kind,
        description="A model in the form in which it is served on one kind of GPU: a TensorRT engine or a frozen checkpoint. "
        "Built once, verified, and served by any number of LLMServices.",
        spec=llmengine.LLMEngineSpec,
        status=llmengine.LLMEngineStatus,
        columns=(
            _READY,
            _REASON,
            _STAGE,
            _PERCENT,
            Column(
                "Model",
                ".spec.source['huggingFace','pvc']['repo','claimName']",
                "Repository of the model on the hub, or the claim that the model is on.",
            ),
            Column("Version", ".spec.runtime.version", "Version of TensorRT-LLM."),
            Column("Build", ".status.build", "The LLMEngineBuild that the spec asks for; its name ends with the key.", wide=True),
            _MESSAGE,
            _AGE,
        ),
        rules=(
            Rule(
                "size(self.metadata.name) <= 63",
                "metadata.name must have at most 63 characters, because labels of Jobs and pods carry it: choose a shorter name",
                field_path=".metadata.name",
            ),
        ),
    ),
    Definition(
        names=llmenginebuild.Kind,
        description="One build of an LLMEngine with everything resolved. Made by the operator, never by a user.",
        spec=llmenginebuild.LLMEngineBuildSpec,
        status=llmenginebuild.LLMEngineBuildStatus,
        columns=(
            _READY,
            _REASON,
            Column("Recipe", ".spec.recipe", "What is made: a TensorRT engine or a frozen checkpoint."),
            _STAGE,
            _PERCENT,
            _MESSAGE,
            _AGE,
        ),
    ),
    Definition(
        names=llmservice.Kind,
        description="An OpenAI-compatible endpoint that serves the verified artifact of an LLMEngine.",
        spec=llmservice.LLMServiceSpec,
        status=llmservice.LLMServiceStatus,
        columns=(
            _READY,
            _REASON,
            Column("Serving", ".status.readyReplicas", "Pods that answer requests.", "integer"),
            Column("Replicas", ".status.replicas", "Pods that there are.", "integer"),
            Column("Model", ".status.model", "Name of the model in requests."),
            Column("URL", ".status.url", "Address of the endpoint inside the cluster."),
            _MESSAGE,
            _AGE,
        ),
        rules=(
            Rule(
                "size(self.metadata.name) <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name must be a DNS label that starts with a letter (lower-case letters, digits, '-') and has at most 52 characters, because "
                "it names the Service and the pods: choose such a name",
                field_path=".metadata.name",
            ),
        ),
        scale=True,
    ),
)
