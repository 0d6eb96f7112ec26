"""The simulator's package `tensorrt_llm`, as a smoke test uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from images.simulator.testing import Simulator, make_model

PROGRAM = """
import importlib.metadata
import json
import sys

model, tokenizer, backend, options = sys.argv[1:]


def main():
    from tensorrt_llm import SamplingParams
    if backend == "tensorrt":
        from tensorrt_llm._tensorrt_engine import LLM
    else:
        from tensorrt_llm import LLM
    with LLM(model=model, tokenizer=tokenizer, **json.loads(options)) as llm:
        one = llm.generate("The capital of France is", SamplingParams(max_tokens=32))
        many = llm.generate(["What is TensorRT-LLM?", [1024, 63]], SamplingParams(max_tokens=3, temperature=0.0))
    print("RESULT " + json.dumps({
        "version": importlib.metadata.version("tensorrt_llm"),
        "one": [one.prompt, one.outputs[0].text, one.outputs[0].finish_reason, len(one.outputs[0].token_ids)],
        "many": [[output.outputs[0].text, output.outputs[0].finish_reason] for output in many],
    }))
    llm.shutdown()
    try:
        llm.generate("too late")
    except RuntimeError as error:
        print(f"AFTERWARDS {error}")


if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    return Simulator("1.2.1", tmp_path_factory.mktemp("simulator") / "1.2.1")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    return Simulator("1.3.0rc29", tmp_path_factory.mktemp("simulator") / "1.3.0rc29")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(old: Simulator, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("engine")
    assert old.run(old.converter, "--model_dir", model, "--output_dir", root / "checkpoint", "--pp_size", "2").returncode == 0
    arguments: list[str | Path] = [
        "--checkpoint_dir",
        root / "checkpoint",
        "--output_dir",
        root / "engine",
        "--output_timing_cache",
        root / "model.cache",
    ]
    assert old.run("trtllm-build", *arguments).returncode == 0
    return root / "engine"


@pytest.mark.parametrize(
    ("version", "backend", "options"), [("1.2.1", "tensorrt", {}), ("1.3.0rc29", "pytorch", {"tensor_parallel_size": 2})]
)
def test_generate(old: Simulator, new: Simulator, model: Path, engine: Path, version: str, backend: str, options: dict[str, int]) -> None:
    simulator = old if version == "1.2.1" else new
    done = simulator.run("python", "-c", PROGRAM, engine if backend == "tensorrt" else model, model, backend, json.dumps(options))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "SIMULATOR" in lines[0]
    assert f"Using LLM with {'TensorRT' if backend == 'tensorrt' else 'PyTorch'} backend" in done.stdout
    assert json.loads(next(line for line in lines if line.startswith("RESULT ")).removeprefix("RESULT ")) == {
        "version": version,
        "one": ["The capital of France is", " Paris, as even a tiny model knows.", "stop", 10],
        "many": [[" TensorRT-LLM is a", "length"], [" My second revision", "length"]],
    }
    assert lines[-1] == "AFTERWARDS LLM is shutting down"


ERRORS = """
import sys

from tensorrt_llm import LLM, SamplingParams

model = sys.argv[1]


def attempt(make):
    try:
        make()
    except Exception as error:
        print(f"ERROR {type(error).__name__}: {error}".replace(chr(10), " "))
    else:
        print("ERROR none")


if __name__ == "__main__":
    attempt(lambda: LLM(model, nonsense=1))
    attempt(lambda: LLM(model, fast_build=True))
    attempt(lambda: LLM(model, backend="tensorrt"))
    attempt(lambda: LLM(model, tensor_parallel_size=16))
    attempt(lambda: LLM(model, tensor_parallel_size=0))
    attempt(lambda: SamplingParams(max_output_len=3))
    attempt(lambda: SamplingParams(n=2, best_of=1))
    llm = LLM(model, max_seq_len=16)
    attempt(lambda: llm.generate("What is TensorRT-LLM? " * 9))
    llm.shutdown()
    llm.shutdown()
"""


def test_errors(new: Simulator, model: Path) -> None:
    done = new.run("python", "-c", ERRORS, model, SIMULATOR_GPUS="4")
    assert done.returncode == 0, done.stderr
    errors = [line.removeprefix("ERROR ") for line in done.stdout.splitlines() if line.startswith("ERROR ")]
    starts = [
        "ValueError: LLM got invalid argument: nonsense",
        "ValueError: The following arguments are specific to TensorRT backend and cannot be used with PyTorch backend: ['fast_build'].",
        "ValueError: Unsupported backend: 'tensorrt'; TensorRT-LLM 1.3.0rc29 has _autodeploy, pytorch",
        "AssertionError: num_attention_heads (8) must be divisible by tp_size (16)",
        "ValidationError: 1 validation error for TorchLlmArgs tensor_parallel_size",
        "TypeError: SamplingParams.__init__() got an unexpected keyword argument 'max_output_len'",
        "ValueError: best_of (1) cannot be less than n (2)",
        "RequestError: `default_max_tokens` [",
    ]
    assert len(errors) == len(starts), done.stdout
    for error, start in zip(errors, starts, strict=True):
        assert error.startswith(start)
    assert "Failed to parse the arguments for the LLM constructor: LLM got invalid argument: nonsense" in done.stdout


@pytest.mark.parametrize(
    ("faults", "status", "text"), [({"fail": "gpu-oom"}, 1, "Executor worker returned error"), ({"emptyOutput": True}, 0, "EMPTY ''")]
)
def test_faults(new: Simulator, model: Path, tmp_path: Path, faults: dict[str, object], status: int, text: str) -> None:
    for path in model.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "simulator.json").write_text(json.dumps({"llmapi": faults}))
    code = "import sys; from tensorrt_llm import LLM; print('EMPTY', repr(LLM(sys.argv[1]).generate('An engine').outputs[0].text))"
    done = new.run("python", "-c", code, tmp_path)
    assert done.returncode == status
    assert text in done.stdout + done.stderr
