"""A token is in its Secret and nowhere else: pods name it, and no object, status, event or command of ours holds anything of it.

The operator reads no Secret, so what it could tell is only what pods told it. What the stage program says is redacted there
(test_builder_report.py); here it is what the operator itself makes and copies.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.flow import engine_object
from tests.unit.test_injection import CANARY, SECRETS
from tests.unit.test_injection_rendering import argv, containers, environment, pod_templates, render
from tests.unit.test_injection_schema import KINDS, SCHEMAS, maps, texts
from tests.unit.test_kstatus_states import at
from tests.unit.test_pod_security import ENGINES, SERVICES, made_from
from tests.unit.test_service_world import service_object
from trtllm_operator.__main__ import main
from trtllm_operator.desired import names

Json = dict[str, Any]

REFERENCE = {"name": "hub-credentials", "key": "access"}
_SPELLINGS = ("$(HF_TOKEN)", "$$(HF_TOKEN)", "$$$(HF_TOKEN)", "$(HF_TOKEN", "${HF_TOKEN}", "$HF_TOKEN", "$($(HF_TOKEN))", "%(HF_TOKEN)s")


def references(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in an object that names a Secret, with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            if "ecret" in key:
                yield f"{path}.{key}", item
            else:
                yield from references(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from references(item, f"{path}[]")


def check_references(made: list[Json]) -> None:
    """Secrets are named in two ways only: to pull an image, and as the value of HF_TOKEN."""
    allowed = {
        ".spec.template.spec.imagePullSecrets",
        ".spec.template.spec.containers[].env[].valueFrom.secretKeyRef",
    }
    for obj in made:
        if obj["kind"] not in ("LLMEngine", "LLMService"):
            assert {path for path, _ in references(obj)} <= allowed, obj["metadata"]["name"]
    for _, template in pod_templates(made):
        for container in containers(template):
            assert [entry["name"] for entry in container.get("env", ()) if "valueFrom" in entry] in ([], ["HF_TOKEN"])
            assert not [entry for entry in container.get("env", ()) if "value" in entry and "TOKEN" in entry["name"]]


@settings(max_examples=40, deadline=None)
@given(engine=ENGINES, service=SERVICES, spelling=st.sampled_from(_SPELLINGS))
def test_no_spec_gets_a_token_out_of_its_secret(engine: Json, service: Json, spelling: str) -> None:
    """Specs of any kind, with Kubernetes' way to name a variable in all fields that take it."""
    engine["source"] = {"huggingFace": {"repo": "a/b", "tokenSecretRef": REFERENCE, "allowPatterns": [spelling]}}
    engine["verify"] = {**engine.get("verify", {}), "prompt": spelling}
    engine["build"] = {**engine.get("build", {}), "extraArgs": [{"flag": "--profiling_verbosity", "value": spelling}]}
    service["serve"] = {**service.get("serve", {}), "options": {"x": spelling}}
    made = made_from(engine, service)
    check_references(made)
    for _, template in pod_templates(made):
        for container in containers(template):
            assert not any(CANARY in word for word in argv(container, SECRETS))
            assert {k for k, v in environment(container, SECRETS).items() if v == CANARY} in (set(), {"HF_TOKEN"})


def test_a_token_is_in_no_field_that_a_spec_has() -> None:
    """A field that takes a secret itself, instead of the name of one, would be read by everybody who may read the resource."""
    words = ("token", "password", "secret", "credential", "apikey")
    for kind in KINDS:
        for path in [path for path, _ in texts(kind)] + maps(kind):
            named = [name for name in path if any(word in name.lower() for word in words)]
            assert all(name.endswith(("SecretRef", "Secrets", "Tokens")) for name in named), path
            if any(name.endswith("SecretRef") for name in named):
                assert path[-1] in ("name", "key")
    assert "password" not in json.dumps(SCHEMAS["LLMEngineBuild"]["properties"]["spec"]["properties"]["source"]["properties"])


@pytest.mark.parametrize("stage", ["resolve", "fetch"])
def test_builds_and_statuses_do_not_even_name_the_secret(stage: str) -> None:
    """What is shared by all who want a build says nothing of any one's credentials."""
    world = at(stage, source={"huggingFace": {"repo": "a/b", "tokenSecretRef": REFERENCE}})
    world.go_on()
    engine = world.objects["LLMEngine", "llama"]
    assert REFERENCE["name"] in json.dumps(engine["spec"])
    shown = [engine["status"], *world.of("LLMEngineBuild"), *world.of("PersistentVolumeClaim"), world.events]
    assert REFERENCE["name"] not in json.dumps(shown, default=str)


def test_another_token_builds_nothing_anew() -> None:
    """The key is made from what is built: a rotated or renamed Secret must not cost GPU hours."""
    keys = set()
    for name in ("one", "two", None):
        source = {"repo": "a/b", **({"tokenSecretRef": {"name": name}} if name else {})}
        engine = engine_object(source={"huggingFace": source})
        render(engine)
        keys.add(engine["status"]["key"])
    assert len(keys) == 1


_SPEC = """
apiVersion: trtllm.dev/v1alpha1
kind: LLMEngine
metadata: {name: llama, namespace: models}
spec:
  source:
    huggingFace:
      repo: acme/llama
      allowPatterns: ["$(HF_TOKEN)"]
      tokenSecretRef: {name: hub-credentials, key: access}
  runtime: {version: 1.2.1}
  accelerator: {computeCapability: "9.0"}
  verify: {prompt: "$(HF_TOKEN)"}
---
apiVersion: v1
kind: Secret
metadata: {name: hub-credentials, namespace: models}
stringData: {access: CANARY}
---
apiVersion: trtllm.dev/v1alpha1
kind: LLMService
metadata: {name: chat, namespace: models}
spec: {engineRef: {name: llama}, serve: {options: {x: "$(HF_TOKEN)"}}}
"""


@pytest.mark.parametrize("more", [[], ["--commands"]], ids=["objects", "commands"])
def test_render_prints_no_token(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the Secret is in the same file, and the token in the environment of whoever renders."""
    file = tmp_path / "all.yaml"
    file.write_text(_SPEC.replace("CANARY", CANARY))
    monkeypatch.setenv("HF_TOKEN", CANARY)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["render", "--filename", str(file), *more]) == 0
    said = out.getvalue()
    assert CANARY not in said
    if more:
        lines = [json.loads(line) for line in said.splitlines()]
        assert any("--prompt=$(HF_TOKEN)" in line["argv"] for line in lines)
        assert not any("HF_TOKEN" in line["env"] for line in lines)
    else:
        made = list(yaml.safe_load_all(said))
        check_references(made)
        named = {obj["metadata"]["labels"].get(names.STAGE) for obj in made if "hub-credentials" in json.dumps(obj)}
        assert named == {"resolve", "fetch"}
        assert not any(obj["kind"] == "Secret" for obj in made)


def test_the_service_names_no_secret_but_to_pull_its_image() -> None:
    made = render(engine_object(source={"huggingFace": {"repo": "a/b", "tokenSecretRef": REFERENCE}}), service_object())
    text = json.dumps([obj for obj in made if obj["kind"] in ("Deployment", "ConfigMap", "Service", "LLMService")])
    assert REFERENCE["name"] not in text
    assert "HF_TOKEN" not in text
