"""Argo CD's health checks: what they say about the test data, in both ways in which Argo CD runs them, and that none can fail."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa.luajit21 import LuaError  # type: ignore[import-untyped]

from tests.support import argocd
from tests.support.argocd import Case, Health, run
from trtllm_operator.api.crdgen.definition import DEFINITIONS

KINDS = [definition.names.kind for definition in DEFINITIONS]
CASES = argocd.cases()

Json = dict[str, Any]


@pytest.mark.parametrize("libraries", [True, False], ids=["bundled", "argocd-cm"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_health(case: Case, libraries: bool) -> None:
    assert run(argocd.script(case.kind), yaml.safe_load(case.file.read_text()), libraries=libraries) == case.wanted


def test_every_kind_has_cases_of_every_health() -> None:
    assert {case.kind for case in CASES} == set(KINDS)
    for kind in KINDS:
        found = {case.wanted.status for case in CASES if case.kind == kind}
        assert found == {"Healthy", "Progressing", "Degraded"} | ({"Suspended"} if kind != "LLMService" else set())


def test_all_test_data_are_used() -> None:
    assert sorted(argocd.CUSTOMIZATIONS.glob("*/*/testdata/*.yaml")) == sorted(case.file for case in CASES)


def test_patch_of_the_config_map_holds_the_scripts() -> None:
    text = argocd.CONFIG_MAP.read_text()
    assert text == argocd.config_map(), "write argocd.config_map() to manifests/argocd/argocd-cm.yaml"
    patch = yaml.safe_load(text)
    assert (patch["kind"], patch["metadata"]) == ("ConfigMap", {"name": "argocd-cm"})
    assert patch["data"] == {f"resource.customizations.health.trtllm.dev_{kind}": argocd.script(kind) for kind in KINDS}
    component = yaml.safe_load((argocd.ROOT / "kustomization.yaml").read_text())
    assert (component["kind"], component["patches"]) == ("Component", [{"path": "argocd-cm.yaml"}])


def test_scripts_differ_only_in_what_the_kinds_differ_in() -> None:
    engine, build, service = (argocd.script(kind).splitlines() for kind in KINDS)
    assert engine[1:] == build[1:]
    left = [line for line in engine[1:] if line not in service]
    assert left == ['if ready.status == "False" and ready.reason == "Suspended" then', '  return health("Suspended", said(ready))']


def ready(status: str, reason: str = "X", *, generation: int = 1, kind: str = "Ready") -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": "m", "observedGeneration": generation}


def obj(*conditions: Json, generation: int = 1, observed: int = 1) -> Json:
    return {"metadata": {"generation": generation}, "status": {"observedGeneration": observed, "conditions": list(conditions)}}


BOTH = pytest.mark.parametrize("libraries", [True, False])


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_conditions_of_an_older_spec_count_for_nothing(kind: str, libraries: bool) -> None:
    code = argocd.script(kind)
    assert run(code, obj(ready("True")), libraries=libraries).status == "Healthy"
    assert run(code, obj(ready("True"), generation=2), libraries=libraries).status == "Progressing"
    assert run(code, obj(ready("True"), generation=2, observed=2), libraries=libraries).status == "Progressing"
    stalled = (ready("False", kind="Stalled"), ready("False"))
    assert run(code, obj(ready("True", kind="Stalled"), *stalled[1:]), libraries=libraries).status == "Degraded"
    assert run(code, obj(*stalled, generation=2, observed=2), libraries=libraries).status == "Progressing"


@BOTH
def test_a_service_is_never_suspended(libraries: bool) -> None:
    suspended = obj(ready("False", "Suspended"))
    assert run(argocd.script("LLMEngine"), suspended, libraries=libraries) == Health("Suspended", "Suspended: m")
    assert run(argocd.script("LLMService"), suspended, libraries=libraries) == Health("Progressing", "Suspended: m")


_condition = st.fixed_dictionaries(
    {"type": st.sampled_from(["Ready", "Stalled", "Reconciling", "Built", ""]), "status": st.sampled_from(["True", "False", "Unknown"])},
    optional={
        "reason": st.none() | st.text(max_size=5),
        "message": st.none() | st.text(max_size=5),
        "observedGeneration": st.integers(-1, 2),
    },
)
_status = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "observedGeneration": st.integers(-1, 2),
        "conditions": st.none() | st.lists(_condition, max_size=4),
        "url": st.text(max_size=3),
    },
)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), status=_status, generation=st.integers(1, 2), libraries=st.booleans())
def test_no_status_makes_a_check_fail(kind: str, status: Json | None, generation: int, libraries: bool) -> None:
    said = run(argocd.script(kind), {"metadata": {"generation": generation}, "status": status}, libraries=libraries)
    if said.status in ("Healthy", "Degraded"):
        assert status is not None
        assert status["observedGeneration"] == generation


@pytest.mark.parametrize(
    "word", ["string.format('x')", "('x'):upper()", "math.floor(1)", "io.write('x')", "os.exit(1)", "debug.traceback()"]
)
def test_the_runner_takes_the_libraries_away(word: str) -> None:
    with pytest.raises(LuaError, match="attempt to index"):
        run(f"local x = {word} return {{status = 'Healthy'}}", {}, libraries=False)


@pytest.mark.parametrize("code", ["return 1", "return {}", "return {status = 'Fine'}", "return {status = 'Healthy', more = 1}", "x = 1"])
def test_the_runner_refuses_what_argo_cd_does_not_understand(code: str) -> None:
    with pytest.raises(ValueError, match="a check must return"):
        run(code, {}, libraries=True)
