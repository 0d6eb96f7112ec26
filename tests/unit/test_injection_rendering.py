"""Everything that is made for an LLMEngine and an LLMService, from the first visit to the last object; and what a kubelet makes of the
pods in it. The expansion of `$(VAR)` is written anew from its description in the API of containers.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import flow
from tests.unit import test_service_world as serving
from trtllm_operator.desired import names, pods

Json = dict[str, Any]

# Nothing about the model that could forbid a parallelism.
_FACTS = {"resolve": dict.fromkeys(("attentionHeads", "kvHeads", "layers"))}


def render(engine: Json, service: Json | None = None) -> list[Json]:
    """All objects, with those of the user and their statuses. Where a spec is refused there is little besides.

    The LLMService's `engineRef` must name the LLMEngine.
    """
    world = flow.World(engine)
    for _ in range(8):
        world.settle()
        running = [job for job in world.of("Job") if "status" not in job]
        if not running:
            break
        for job in running:
            stage = job["metadata"]["labels"][names.STAGE]
            world.finish(stage, _FACTS.get(stage))
    made = list(world.objects.values())
    if service is not None:
        served = serving.World(service, engine=False)
        served.builds = {obj["metadata"]["name"]: obj for obj in made if obj["kind"] == "LLMEngineBuild"}
        served.engine = engine
        served.settle()
        made += [served.service, *served.objects.values()]
    return made


def pod_templates(objects: list[Json]) -> Iterator[tuple[Json, Json]]:
    """Objects that make pods, with their templates."""
    for obj in objects:
        if obj["kind"] in ("Job", "Deployment"):
            yield obj, obj["spec"]["template"]


def containers(template: Mapping[str, Any]) -> list[Json]:
    """Init containers first."""
    return [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """What a container gets for an entry of command, args or an env value: `$(NAME)` is a variable, if there is one, and `$$` a dollar sign."""
    if "$" not in text:
        return text
    result, rest = [], text
    while rest:
        if rest.startswith("$$"):
            result.append("$")
            rest = rest[2:]
        elif rest.startswith("$(") and (end := rest.find(")")) > 0:
            name = rest[2:end]
            result.append(variables.get(name, f"$({name})"))
            rest = rest[end + 1 :]
        else:
            result.append(rest[0])
            rest = rest[1:]
    return "".join(result)


def environment(container: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
    """What the container's program finds. `secrets`: values of the variables that come from Secrets."""
    found: dict[str, str] = {}
    for entry in container.get("env", ()):
        found[entry["name"]] = expand(entry["value"], found) if "value" in entry else secrets[entry["name"]]
    return found


def argv(container: Mapping[str, Any], secrets: Mapping[str, str]) -> list[str]:
    """Words of the container's program."""
    variables = environment(container, secrets)
    return [expand(word, variables) for word in [*container.get("command", ()), *container.get("args", ())]]


def request(words: list[str]) -> Json | None:
    """The stage program's request, where it is the stage program."""
    return json.loads(words[words.index("--request") + 1]) if "--request" in words else None


def programs(objects: list[Json], secrets: Mapping[str, str]) -> Iterator[list[str]]:
    """Words of every program that runs: of the containers, and those that the stage program starts."""
    for _, template in pod_templates(objects):
        for container in containers(template):
            words = argv(container, secrets)
            yield words
            for step in (request(words) or {}).get("steps", ()):
                yield step["argv"]


# The API server's own rules for names and labels.
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_LONGEST = {"Job": 63, "Service": 63}


def check_names(objects: list[Json]) -> None:
    """Would the API server take all names and labels?"""
    for obj in objects:
        name = obj["metadata"]["name"]
        assert _SUBDOMAIN.fullmatch(name), name
        assert len(name) <= _LONGEST.get(obj["kind"], 253), name
        templates = [obj["spec"]["template"]] if obj["kind"] in ("Job", "Deployment") else []
        for part in [obj, *templates]:
            for value in part["metadata"].get("labels", {}).values():
                assert _VALUE.fullmatch(value), value
                assert len(value) <= 63, value
        for template in templates:
            for named in [*containers(template), *template["spec"]["volumes"]]:
                assert _LABEL.fullmatch(named["name"])
                assert len(named["name"]) <= 63


_ROOTS = (names.CHECKPOINTS, names.ENGINES, names.SOURCE, names.SCRATCH, names.MODELS, names.TOKENIZER, names.OPTIONS, names.TOOLS)
_PATHS = ("directory", "checkpoint", "attemptDirectory", "attempts", "manifest")
_PATH_FLAGS = (
    "--model_dir",
    "--output_dir",
    "--checkpoint_dir",
    "--output_timing_cache",
    "--model",
    "--tokenizer",
    "--extra_llm_api_options",
)


def paths(objects: list[Json], secrets: Mapping[str, str]) -> Iterator[str]:
    """Every path in every pod, those on a claim with a slash before them."""
    for words in programs(objects, secrets):
        yield from (words[i + 1] for i, word in enumerate(words) if word in _PATH_FLAGS)
        if words[0] == "trtllm-serve":
            yield words[1]
        if (asked := request(words)) is not None:
            yield from (asked[field] for field in _PATHS if field in asked)
            if asked.get("source", {}).get("kind") == "pvc":
                yield asked["source"]["path"]
    for _, template in pod_templates(objects):
        for container in containers(template):
            for mount in container["volumeMounts"]:
                yield mount["mountPath"]
                if "subPath" in mount:
                    yield f"{names.ENGINES}/{mount['subPath']}"


def check_paths(objects: list[Json], secrets: Mapping[str, str]) -> None:
    """No path leaves its directory."""
    for path in paths(objects, secrets):
        assert posixpath.normpath(path) == path, path
        assert path in ("/tmp", "/dev/shm") or any(path == root or path.startswith(f"{root}/") for root in _ROOTS), path  # noqa: S108


def plain(objects: list[Json], secrets: Mapping[str, str]) -> list[Any]:
    """What is made, less hashes and with what is packed unpacked: commands as programs see them, requests and options as values.

    Names that are made from hashes are replaced, so that two renderings can be compared.
    """
    marks: dict[str, str] = {}
    for obj in objects:
        status = obj.get("status") or {}
        if obj["kind"] == "LLMEngine" and "plan" in status:
            marks |= {status["build"]: "<build>", status["plan"]["checkpointClaim"]: "<checkpoint>", status["key"]: "<key>"}
            marks |= {status["resolved"]["sourceHash"]: "<source>", status["key"][: names.KEY_LENGTH]: "<short>"}
        if obj["kind"] == "ConfigMap":
            marks[obj["metadata"]["name"]] = "<options>"
    result: list[Any] = []
    for obj in objects:
        if obj["kind"] in ("LLMEngine", "LLMService"):
            continue
        notes = {k: v for k, v in obj["metadata"].get("annotations", {}).items() if k == names.ENGINE_SETTINGS}
        content = {k: v for k, v in obj.items() if k not in ("metadata", "status")} | {
            "labels": obj["metadata"].get("labels"),
            "notes": [json.loads(value) for value in notes.values()],
            "data": [yaml.safe_load(text) for text in obj.get("data", {}).values()],
        }
        for _, template in pod_templates([obj]):
            inner = [_plain_container(container, secrets) for container in containers(template)]
            spec = {k: v for k, v in template["spec"].items() if k not in ("containers", "initContainers")}
            content["spec"] = {**obj["spec"], "template": {"labels": template["metadata"]["labels"], "spec": spec, "containers": inner}}
        result.append(_marked(content, sorted(marks.items(), key=lambda mark: -len(mark[0]))))
    return result


def _plain_container(container: Json, secrets: Mapping[str, str]) -> Json:
    words = argv(container, secrets)
    asked = request(words)
    shown = [word for i, word in enumerate(words) if asked is None or words[i - 1] != "--request"]
    rest = {k: v for k, v in container.items() if k not in ("command", "args", "env")}
    return {**rest, "argv": shown, "request": asked, "env": environment(container, secrets)}


def _marked(value: Any, marks: list[tuple[str, str]]) -> Any:
    if isinstance(value, Mapping):
        return {_marked(key, marks): _marked(item, marks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item, marks) for item in value]
    if isinstance(value, str):
        for mark, name in marks:
            value = value.replace(mark, name)
    return value


EXPANSIONS = [
    ("$(A)", "1"),
    ("$$(A)", "$(A)"),
    ("$$$(A)", "$1"),
    ("$(B)", "$(B)"),
    ("$(A", "$(A"),
    ("$A ${A} $", "$A ${A} $"),
    ("$$", "$"),
    ("$()", "$()"),
    ("x$(A)y$(A)", "x1y1"),
]


@pytest.mark.parametrize(("text", "wanted"), EXPANSIONS)
def test_expansion(text: str, wanted: str) -> None:
    """The cases of Kubernetes' documentation, and the odd ones of its tests."""
    assert expand(text, {"A": "1"}) == wanted


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("$()A ")) | st.text())
def test_a_literal_survives_expansion(text: str) -> None:
    assert expand(pods.literal(text), {"A": "1", "": "2"}) == text


def test_everything_is_rendered() -> None:
    objects = render(flow.engine_object(), serving.service_object(serve={"options": {"a": 1}}))
    stages = [obj["metadata"]["labels"][names.STAGE] for obj in objects if obj["kind"] == "Job"]
    assert stages == ["resolve", "fetch", "build", "publish", "verify"]
    assert {"LLMEngineBuild", "PersistentVolumeClaim", "Deployment", "ConfigMap", "Service", "NetworkPolicy"} <= {
        o["kind"] for o in objects
    }
    assert [words[0] for words in programs(objects, {})].count("nvidia-smi") == 2
    assert {words[0] for words in programs(objects, {})} == {"python3", "nvidia-smi", "trtllm-build", "trtllm-serve"}
