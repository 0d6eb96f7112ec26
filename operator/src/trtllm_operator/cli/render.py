"""`trtllm-operator render`: what would be made from the given files, with every prerequisite taken as met. Talks to no cluster.

It runs the operator's own decisions on made-up observations (a resolved source, finished stages), so it can't differ from them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from trtllm_operator.api.common import API_VERSION
from trtllm_operator.api.llmengine import LLMEngineSpec, ModelFacts, ResolvedSource
from trtllm_operator.api.llmenginebuild import LLMEngineBuildSpec
from trtllm_operator.decide import build, engine, service
from trtllm_operator.decide.decision import Decision
from trtllm_operator.decide.input import BuildInput, EngineInput, ServiceInput
from trtllm_operator.desired import enginebuild, names, requests
from trtllm_operator.desired.config import Config

_NOW = datetime(2000, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  the same in every output
_REVISION = "0" * 40


@dataclass(frozen=True)
class Assumed:
    """What the resolve stage would find out, and rendering can't."""

    architecture: str
    model_bytes: int


class RenderError(Exception):
    """The files can't be rendered; the message names file, object and remedy."""


@dataclass(frozen=True)
class Rendered:
    """One object, and the user's object that it is for."""

    resource: str
    obj: Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.add_argument(
        "-f", "--filename", action="append", required=True, metavar="FILE", help="YAML with LLMEngines and LLMServices; - is standard input"
    )
    parser.add_argument("--commands", action="store_true", help="print one JSON line for each program that will run in a runtime image")
    parser.add_argument(
        "--architecture", default="LlamaForCausalLM", help="architecture of the models, which a real run reads from config.json"
    )
    parser.add_argument("--model-bytes", type=int, default=16 * 2**30, help="size of the models, which a real run reads from the hub")
    parser.add_argument("--tools-image", default="trtllm-operator/tools:dev", help="image of the stage program")
    parser.add_argument(
        "--runtime-repository", default=Config.runtime_repository, help="repository of the runtime image where a resource names none"
    )


def main(args: argparse.Namespace) -> int:
    """Print the objects, or the commands. 0, or 1 with a message for a person."""
    config = Config(tools_image=args.tools_image, runtime_repository=args.runtime_repository)
    try:
        rendered = list(render(load(args.filename), config, Assumed(args.architecture, args.model_bytes)))
    except RenderError as error:
        print(f"trtllm-operator render: {error}", file=sys.stderr)
        return 1
    if args.commands:
        for line in commands(rendered, config):
            print(json.dumps(line, ensure_ascii=False))
    else:
        print(yaml.safe_dump_all([_plain(item.obj) for item in rendered], sort_keys=False, width=120, allow_unicode=True), end="")
    return 0


def load(files: Iterable[str]) -> list[dict[str, Any]]:
    """Objects of the files, in their order."""
    objects: list[dict[str, Any]] = []
    for file in files:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
            documents = [document for document in yaml.safe_load_all(text) if document is not None]
        except OSError as error:
            raise RenderError(f"{file}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise RenderError(f"{file}: not valid YAML: {error}") from error
        for document in documents:
            if not isinstance(document, dict) or "kind" not in document:
                raise RenderError(f"{file}: a document is not a Kubernetes object: it has no kind")
            objects += document.get("items", []) if document["kind"] == "List" else [document]
    return objects


def _observed(obj: Mapping[str, Any], uid: int) -> dict[str, Any]:
    """The object as the API server would give it."""
    metadata = obj.get("metadata") or {}
    if not metadata.get("name"):
        raise RenderError(f"a {obj['kind']} has no metadata.name")
    return {
        "apiVersion": API_VERSION,
        "kind": obj["kind"],
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata.get("namespace", "default"),
            "uid": f"00000000-0000-0000-0000-{uid:012d}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": "2000-01-01T00:00:00Z",
        },
        "spec": obj.get("spec") or {},
    }


def render(objects: Iterable[Mapping[str, Any]], config: Config, assumed: Assumed) -> Iterator[Rendered]:
    """All objects, each once, in the order in which they would be made."""
    ours = [_observed(obj, i) for i, obj in enumerate(objects, 1) if obj["kind"] in ("LLMEngine", "LLMService")]
    engines: dict[tuple[str, str], tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {}
    seen: set[tuple[str, str, str]] = set()

    def fresh(resource: str, decision: Decision) -> Iterator[Rendered]:
        for apply in decision.apply:
            mark = (apply.obj["kind"], apply.obj["metadata"]["namespace"], apply.obj["metadata"]["name"])
            if mark not in seen:
                seen.add(mark)
                yield Rendered(resource, apply.obj)

    for item in (obj for obj in ours if obj["kind"] == "LLMEngine"):
        label = f"LLMEngine/{item['metadata']['namespace']}/{item['metadata']['name']}"
        finished, builds, decisions = _engine(item, config, assumed)
        for decision in decisions:
            yield from fresh(label, decision)
        engines[item["metadata"]["namespace"], item["metadata"]["name"]] = (finished, builds)
    for item in (obj for obj in ours if obj["kind"] == "LLMService"):
        metadata = item["metadata"]
        wanted = (item["spec"].get("engineRef") or {}).get("name", "")
        if (metadata["namespace"], wanted) not in engines:
            raise RenderError(
                f"LLMService {metadata['name']}: spec.engineRef names LLMEngine {wanted!r}, which is in none of the files: give its file with -f as well"
            )
        finished, builds = engines[metadata["namespace"], wanted]
        for decision in _service(item, finished, builds, config):
            yield from fresh(f"LLMService/{metadata['namespace']}/{metadata['name']}", decision)


def _refuse(what: str, decision: Decision) -> None:
    for condition in (decision.status or {}).get("conditions", ()):
        if condition["type"] == "Stalled":
            raise RenderError(f"{what}: {condition['reason']}: {condition['message']}")


def _engine(item: dict[str, Any], config: Config, assumed: Assumed) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[Decision]]:
    """An engine from its first visit to Ready."""
    what = f"LLMEngine {item['metadata']['name']}"
    first = engine.decide(EngineInput(engine=item, config=config, now=_NOW))
    _refuse(what, first)
    spec = LLMEngineSpec.model_validate(item["spec"])
    hub = spec.source.hugging_face
    revision = hub.revision if hub and len(hub.revision) == len(_REVISION) else _REVISION
    facts = ModelFacts(architecture=assumed.architecture, bytes=assumed.model_bytes, files=1)
    resolved = ResolvedSource(source_hash=enginebuild.source_hash(spec), revision=revision, model=facts)
    looked_up = {**item, "status": {"resolved": resolved.dump()}}
    second = engine.decide(EngineInput(engine=looked_up, config=config, now=_NOW))
    _refuse(what, second)
    made = next(apply.obj for apply in second.apply if apply.obj["kind"] == "LLMEngineBuild")
    building = {
        **made,
        "metadata": {**made["metadata"], "uid": "00000000-0000-0000-0000-00000000b01d", "generation": 1, "resourceVersion": "1"},
    }
    decisions = [first, second]
    stages: list[dict[str, Any]] = []
    inp = BuildInput(build=building, config=config, now=_NOW, engines=(looked_up,))
    for _ in range(3):
        passed = build.decide(replace(inp, build={**building, "status": {"stages": stages}}))
        decisions.append(passed)
        running = [stage for stage in (passed.status or {})["stages"] if stage["state"] == "Pending" and stage["attempts"]]
        stages = [{**stage, "state": "Succeeded"} if stage in running else stage for stage in (passed.status or {})["stages"]]
    name = made["metadata"]["name"]
    published = {**building, "status": {"stages": stages, "artifact": _artifact(building, name, spec.storage.claim_name)}}
    third = engine.decide(EngineInput(engine=looked_up, config=config, now=_NOW, builds={name: published}))
    decisions.append(third)
    status = {**(third.status or {}), "artifact": published["status"]["artifact"]}
    return {**looked_up, "status": status}, {name: published}, decisions


def _service(item: dict[str, Any], finished: dict[str, Any], builds: dict[str, dict[str, Any]], config: Config) -> Iterator[Decision]:
    """Two passes: the second sees what the first made, and makes what waits for that (an autoscaler waits for its Deployment)."""
    children: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(2):
        inp = ServiceInput(service=item, config=config, now=_NOW, engine=finished, builds=builds, children=tuple(children.values()))
        decision = service.decide(inp)
        _refuse(f"LLMService {item['metadata']['name']}", decision)
        yield decision
        for made in (apply.obj for apply in decision.apply):
            metadata = {**made["metadata"], "uid": f"{made['kind']}-{made['metadata']['name']}", "generation": 1}
            children[made["kind"], made["metadata"]["name"]] = {**made, "metadata": metadata}


def _artifact(building: Mapping[str, Any], name: str, shared: str | None) -> dict[str, Any]:
    spec = LLMEngineBuildSpec.model_validate(building["spec"])
    checkpoint = names.checkpoint_name(spec.source.dump())
    directory = requests.artifact_directory(spec, name, checkpoint)
    is_engine = spec.recipe == "TensorRTEngine"
    root = names.ENGINES if is_engine else names.CHECKPOINTS
    relative = directory.removeprefix(f"{root}/")
    return {
        "kind": spec.recipe,
        "key": enginebuild.key(spec),
        "build": name,
        "claimName": shared or (name if is_engine else checkpoint),
        "path": f"{relative}/artifact/engine" if is_engine else f"{relative}/files",
        **({"tokenizerPath": f"{relative}/artifact/tokenizer"} if is_engine else {}),
        "bytes": spec.model.bytes,
        "runtimeVersion": spec.runtime_version,
        "runtimeImage": spec.runtime_image,
        "tensorParallel": spec.parallelism.tensor,
        "pipelineParallel": spec.parallelism.pipeline,
    }


def commands(rendered: Iterable[Rendered], config: Config) -> Iterator[dict[str, Any]]:
    """One line for each program in a runtime image: the container's own, then those that the stage program starts, in order."""
    for item in rendered:
        template = item.obj.get("spec", {}).get("template") if item.obj["kind"] in ("Job", "Deployment") else None
        for container in (template or {}).get("spec", {}).get("containers", ()):
            if container["image"] == config.tools_image:
                continue
            stage = item.obj["metadata"]["labels"].get(names.STAGE, "serve")
            env = {entry["name"]: entry["value"].replace("$$", "$") for entry in container.get("env", ()) if "value" in entry}
            argv = [text.replace("$$", "$") for text in [*container.get("command", ()), *container.get("args", ())]]
            line = {"resource": item.resource, "stage": stage, "image": container["image"], "argv": argv, "env": env}
            yield line
            if "--request" in argv:
                for step in json.loads(argv[argv.index("--request") + 1]).get("steps", ()):
                    yield {**line, "argv": step["argv"]}


def _plain(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Without what belongs to a cluster: uids of owners, and our own bookkeeping."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "ownerReferences"}
    notes = {key: value for key, value in metadata.pop("annotations", {}).items() if key != names.DESIRED_HASH}
    if notes:
        metadata["annotations"] = notes
    return {**obj, "metadata": metadata}
