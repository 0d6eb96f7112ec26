"""The whole way of a model through the real stage program: the operator's own requests, the demo's hub, the simulator of TensorRT-LLM."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from images.simulator import testing

from tests.unit.test_builder_support import Result, Stage, outcome
from trtllm_operator.api.llmengine import LLMEngineSpec, ModelFacts, ResolvedSource
from trtllm_operator.builder import install
from trtllm_operator.decide import plan
from trtllm_operator.desired import enginebuild, names, requests
from trtllm_operator.desired.config import Config

RESOURCE = "default/tiny"
CONFIG = Config(tools_image="tools", runtime_repository="runtime")
CONVERTERS = "/app/tensorrt_llm"


@pytest.fixture(scope="module")
def hub() -> Iterator[testing.Server]:
    with testing.hub() as running:
        yield running


@pytest.fixture(scope="module", params=["1.2.1", "1.3.0rc29"])
def any_simulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> testing.Simulator:
    return testing.Simulator(request.param, tmp_path_factory.mktemp("simulator") / "root", {"SIMULATOR_GPUS": "2"})


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> testing.Simulator:
    return testing.Simulator("1.2.1", tmp_path_factory.mktemp("simulator") / "root", {"SIMULATOR_GPUS": "2"})


@dataclass
class Flow:
    """Runs stages one after the other, each with what the operator makes of the facts of those before."""

    root: Path
    hub: testing.Server
    simulator: testing.Simulator
    repo: str
    tensor: int = 2

    @property
    def spec(self) -> LLMEngineSpec:
        return LLMEngineSpec.model_validate(
            {
                "source": {"huggingFace": {"repo": self.repo, "endpoint": self.hub.url}},
                "runtime": {"version": self.simulator.version},
                "parallelism": {"tensor": self.tensor},
                "accelerator": {"computeCapability": "9.0"},
                "build": {"maxBatchSize": 4, "maxSeqLen": 128},
                "verify": {"maxTokens": 8},
            }
        )

    def stage(self, request: dict[str, Any], **env: str) -> Result:
        """Paths in a pod are paths below a directory here. Stages of the tools image run in this process, which is quicker."""
        text = json.dumps(request)
        for path in (names.CHECKPOINTS, names.ENGINES, names.TOOLS, names.SCRATCH):
            text = text.replace(f'"{path}/', f'"{self.root}{path}/')
        text = text.replace(CONVERTERS, str(self.simulator.root / "app"))
        if request["stage"] not in {"build", "verify"}:
            return outcome(str(request["stage"]), json.loads(text), **env)
        (self.root / "scratch").mkdir(exist_ok=True)
        environment = {name: value for name, value in self.simulator.environment().items() if name != "TERMINATION_LOG"}
        search = [str(self.simulator.root / "bin"), str(Path(sys.executable).parent), os.defpath]
        stage = Stage(self.root, {**environment, "HOME": str(self.root / "home"), "PATH": os.pathsep.join(search), **env})
        return stage.run(str(request["stage"]), json.loads(text))

    def resolve(self, **env: str) -> Result:
        return self.stage(requests.resolve(self.spec, RESOURCE), **env)

    def planned(self, facts: dict[str, Any]) -> plan.Planned:
        about = {key: value for key, value in facts.items() if key != "revision"}
        resolved = ResolvedSource(
            source_hash=enginebuild.source_hash(self.spec), revision=facts["revision"], model=ModelFacts.model_validate(about)
        )
        return plan.make(self.spec, resolved, None, CONFIG)

    def until_build(self) -> tuple[plan.Planned, Result]:
        planned = self.planned(self.resolve().facts)
        assert self.stage(requests.fetch(planned.spec, RESOURCE, planned.checkpoint)).report["ok"]
        return planned, self.stage(requests.build(planned.spec, RESOURCE, planned.name, planned.key, planned.checkpoint, 1))

    def publish_and_verify(self, planned: plan.Planned) -> tuple[Result, Result]:
        published = self.stage(requests.publish(planned.spec, RESOURCE, planned.name, planned.key, planned.checkpoint))
        install.run(self.root / "tools")
        digest = published.facts["digest"]
        request = requests.verify(planned.spec, self.spec.verify, RESOURCE, planned.name, planned.key, planned.checkpoint, digest)
        return published, self.stage(request)


@pytest.fixture
def flow(tmp_path: Path, hub: testing.Server, simulator: testing.Simulator) -> Flow:
    return Flow(tmp_path, hub, simulator, "demo/tiny-llama")


def test_the_whole_way(tmp_path: Path, hub: testing.Server, any_simulator: testing.Simulator) -> None:
    flow = Flow(tmp_path, hub, any_simulator, "demo/tiny-llama")
    planned = flow.planned(flow.resolve().facts)
    fetched = flow.stage(requests.fetch(planned.spec, RESOURCE, planned.checkpoint)).facts
    assert fetched["bytes"] == planned.spec.model.bytes
    if planned.spec.recipe == "TensorRTEngine":
        built = flow.stage(requests.build(planned.spec, RESOURCE, planned.name, planned.key, planned.checkpoint, 1)).facts
        assert built["runtimeVersion"] == "1.2.1"
        assert built["gpus"][0]["computeCapability"] == "9.0"
    published, verified = flow.publish_and_verify(planned)
    assert published.facts["kind"] == planned.spec.recipe
    assert published.facts["maxSeqLen"] >= 128
    claim = tmp_path / ("engines" if planned.spec.recipe == "TensorRTEngine" else "checkpoints")
    assert (claim / published.facts["path"] / "config.json").is_file()
    assert verified.facts["output"].strip()
    assert 1 <= verified.facts["tokens"] <= 8
    assert len(verified.facts["gpus"]) == 2


def test_gated(flow: Flow) -> None:
    flow.repo = "demo/gated-llama"
    assert flow.resolve().reason == "ModelAccessDenied"
    assert flow.resolve(HF_TOKEN="hf_demo_ungranted_token").reason == "ModelAccessDenied"
    assert flow.resolve(HF_TOKEN="no token of anybody").reason == "ModelAccessDenied"
    assert flow.resolve(HF_TOKEN="hf_demo_token").report["ok"]


def test_flaky_hub(flow: Flow) -> None:
    flow.repo = "demo/flaky-llama"
    planned = flow.planned(flow.resolve().facts)
    assert flow.stage(requests.fetch(planned.spec, RESOURCE, planned.checkpoint)).report["ok"]


@pytest.mark.parametrize(
    ("repo", "reason"), [("demo/pickle-llama", "InvalidModel"), ("demo/not-a-model", "InvalidModel"), ("demo/absent", "ModelNotFound")]
)
def test_unusable_sources(flow: Flow, repo: str, reason: str) -> None:
    flow.repo = repo
    assert flow.resolve().reason == reason


def test_too_large_for_the_volume(flow: Flow) -> None:
    flow.repo = "demo/huge-llama"
    planned = flow.planned(flow.resolve().facts)
    assert flow.stage(requests.fetch(planned.spec, RESOURCE, planned.checkpoint)).reason == "DiskFull"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("convert-disk-full", "DiskFull"),
        ("build-gpu-oom", "GPUOutOfMemory"),
        ("build-no-engine", "NoEngineProduced"),
    ],
)
def test_builds_that_fail(flow: Flow, name: str, reason: str) -> None:
    flow.repo = f"demo/broken-{name}"
    _, built = flow.until_build()
    assert built.reason == reason, built.log


@pytest.mark.parametrize(
    ("name", "reason"), [("verify-gpu-oom", "GPUOutOfMemory"), ("verify-empty", "VerifyFailed"), ("build-half-engine", "VerifyFailed")]
)
def test_artifacts_that_do_not_work(flow: Flow, name: str, reason: str) -> None:
    flow.repo = f"demo/broken-{name}"
    planned, built = flow.until_build()
    assert built.report["ok"], built.log
    published, verified = flow.publish_and_verify(planned)
    assert published.report["ok"]
    assert verified.reason == reason, verified.log
