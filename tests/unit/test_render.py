"""`trtllm-operator render`: all objects, every program of a runtime image, and clear refusals, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from trtllm_operator.__main__ import main

ENGINE = """
apiVersion: trtllm.dev/v1alpha1
kind: LLMEngine
metadata: {name: llama, namespace: demo}
spec:
  source: {huggingFace: {repo: meta-llama/Llama-3.1-8B-Instruct, tokenSecretRef: {name: hf-token}}}
  runtime: {version: "VERSION"}
  parallelism: {tensor: 2}
  build: {maxBatchSize: 64, workers: 2}
  accelerator: {product: NVIDIA-H100-80GB-HBM3}
"""
SERVICE = """
apiVersion: trtllm.dev/v1alpha1
kind: LLMService
metadata: {name: llama, namespace: demo}
spec:
  engineRef: {name: llama}
  autoscaling: {minReplicas: 2, maxReplicas: 4, metrics: [{type: resource, name: cpu, averageUtilization: 80}]}
  serve: {options: {guided_decoding_backend: xgrammar}}
"""


def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], *documents: str, commands: bool = False) -> tuple[int, str, str]:
    file = tmp_path / "in.yaml"
    file.write_text("---".join(documents), encoding="utf-8")
    code = main(["render", "-f", str(file), *(["--commands"] if commands else [])])
    out = capsys.readouterr()
    return code, out.out, out.err


def objects(text: str) -> list[tuple[str, str]]:
    return [(item["kind"], item["metadata"]["labels"].get("trtllm.dev/stage", "")) for item in yaml.safe_load_all(text)]


def test_everything_that_would_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(tmp_path, capsys, ENGINE.replace("VERSION", "1.2.1"), SERVICE)
    assert (code, err) == (0, "")
    assert objects(out) == [
        ("Job", "resolve"),
        ("LLMEngineBuild", ""),
        ("PersistentVolumeClaim", ""),
        ("PersistentVolumeClaim", ""),
        ("Job", "fetch"),
        ("Job", "build"),
        ("Job", "publish"),
        ("Job", "verify"),
        ("NetworkPolicy", ""),
        ("ConfigMap", ""),
        ("Deployment", ""),
        ("Service", ""),
        ("PodDisruptionBudget", ""),
        ("HorizontalPodAutoscaler", ""),
    ]


def test_every_program_of_a_runtime_image_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(tmp_path, capsys, ENGINE.replace("VERSION", "1.2.1"), SERVICE, commands=True)
    assert code == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert {frozenset(line) for line in lines} == {frozenset(("resource", "stage", "image", "argv", "env"))}
    assert [(line["stage"], Path(line["argv"][1] if line["argv"][0] == "python3" else line["argv"][0]).name) for line in lines] == [
        ("build", "stage.pyz"),
        ("build", "nvidia-smi"),
        ("build", "convert_checkpoint.py"),
        ("build", "trtllm-build"),
        ("verify", "stage.pyz"),
        ("verify", "nvidia-smi"),
        ("verify", "llmapi_smoke.py"),
        ("serve", "trtllm-serve"),
    ]
    assert {line["image"] for line in lines} == {"nvcr.io/nvidia/tensorrt-llm/release:1.2.1"}
    assert all(line["env"]["HF_HUB_OFFLINE"] == "1" for line in lines)
    assert "--extra_llm_api_options" in lines[-1]["argv"]


def test_no_build_after_the_removal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(tmp_path, capsys, ENGINE.replace("VERSION", "1.3.0rc29"), commands=True)
    assert "trtllm-build" not in out
    assert "convert_checkpoint" not in out


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([SERVICE], ["LLMService llama", "spec.engineRef", "-f"]),
        ([ENGINE.replace('"VERSION"', '"1.3.0rc29", backend: tensorrt')], ["BackendNotAvailable", "1.2.1"]),
        ([ENGINE.replace("VERSION", "0.1.0")], ["UnsupportedVersion"]),
        (["- just\n- a list\n"], ["kind"]),
        (["a: [b\n"], ["YAML"]),
    ],
)
def test_refusals_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str], documents: list[str], words: list[str]) -> None:
    code, out, err = run(tmp_path, capsys, *documents)
    assert (code, out) == (1, "")
    assert all(word in err for word in words), err
