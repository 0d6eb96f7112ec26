"""The simulator's convert_checkpoint.py, trtllm-build and nvidia-smi: real work, real refusals."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from images.simulator.testing import Simulator, build, convert, make_model, nvidia_smi

PREFLIGHT = "--query-gpu=index,name,uuid,compute_cap,memory.total,memory.free,driver_version,mig.mode.current"


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
def checkpoint(old: Simulator, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("checkpoint")
    done = old.run(
        old.converter,
        "--model_dir",
        model,
        "--output_dir",
        target,
        "--dtype",
        "bfloat16",
        "--tp_size",
        "2",
        "--pp_size",
        "2",
        "--workers",
        "2",
    )
    assert done.returncode == 0, done.stderr
    assert "Total time of converting checkpoints: 00:00:0" in done.stdout
    return target


@pytest.fixture
def inside(old: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the test call the programs in its own process, which is quicker, as version 1.2.1."""
    monkeypatch.syspath_prepend(old.root / "site")
    for variable in ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)


def broken(model: Path, target: Path, **faults: Any) -> Path:
    """The model with a simulator.json."""
    shutil.copytree(model, target)
    (target / "simulator.json").write_text(json.dumps(faults))
    return target


def test_the_first_line_says_simulator(old: Simulator) -> None:
    done = old.run(old.converter)
    assert "SIMULATOR" in done.stdout.splitlines()[0]
    assert "1.2.1" in done.stdout.splitlines()[0]


def test_convert_writes_one_file_for_each_rank(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["architecture"] == "LlamaForCausalLM"
    assert config["dtype"] == "bfloat16"
    assert config["mapping"]["world_size"] == 4
    assert (config["mapping"]["tp_size"], config["mapping"]["pp_size"]) == (2, 2)
    assert config["quantization"]["quant_algo"] is None
    assert sorted(path.name for path in checkpoint.iterdir()) == ["config.json", *(f"rank{rank}.safetensors" for rank in range(4))]


def test_option_errors_end_with_status_2(old: Simulator, model: Path, tmp_path: Path) -> None:
    done = old.run(old.converter, "--model_dir", model, "--output_dir", tmp_path / "out", "--tensor_parallel", "2")
    assert done.returncode == 2
    assert "unrecognized arguments: --tensor_parallel" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["--dtype", "int8"], SystemExit, "2"),
        (["--tp_size", "3"], AssertionError, r"num_attention_heads \(8\) must be divisible by tp_size \(3\)"),
        (["--pp_size", "4"], AssertionError, "num_hidden_layers 2 must be a multiple of pipeline parallelism size 4"),
        (["--use_weight_only"], NotImplementedError, "the simulator does not implement --use_weight_only"),
    ],
)
@pytest.mark.usefixtures("inside")
def test_convert_refuses(model: Path, tmp_path: Path, arguments: list[str], error: type[BaseException], text: str) -> None:
    with pytest.raises(error, match=text):
        convert.main(["--model_dir", str(model), "--output_dir", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("inside")
def test_convert_refuses_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"does not appear to have a file named config\.json"):
        convert.main(["--model_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")])


def test_build_writes_engines_and_the_timing_cache(old: Simulator, checkpoint: Path, tmp_path: Path) -> None:
    cache = tmp_path / "model.cache"
    done = old.run(
        "trtllm-build", "--checkpoint_dir", checkpoint, "--output_dir", tmp_path / "engine", "--max_batch_size", "8", "--max_seq_len", "256",
        "--max_num_tokens", "4096", "--gemm_plugin", "auto", "--use_paged_context_fmha", "enable", "--output_timing_cache", cache, "--workers", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("[TRT-LLM] [I] Total time of building all engines: 00:00:00")
    assert done.stdout.count("Serializing engine to") == 4
    assert cache.stat().st_size > 0
    config = json.loads((tmp_path / "engine/config.json").read_text())
    assert config["version"] == "1.2.1"
    assert config["pretrained_config"]["mapping"]["world_size"] == 4
    # Put right as BuildConfig does: no more input than the whole sequence, no more tokens than sequences can hold.
    assert {key: config["build_config"][key] for key in ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens")} == {
        "max_batch_size": 8, "max_input_len": 256, "max_seq_len": 256, "max_num_tokens": 2048,
    }  # fmt: skip
    assert config["build_config"]["plugin_config"]["gemm_plugin"] == "auto"
    assert all((tmp_path / f"engine/rank{rank}.engine").is_file() for rank in range(4))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["--tp_size", "2"], SystemExit, "unrecognized arguments: --tp_size 2"),
        (["--dtype", "float16"], SystemExit, "unrecognized arguments: --dtype float16"),
        (["--strongly_typed"], SystemExit, "unrecognized arguments: --strongly_typed"),
        (["--gemm_plugin", "int4"], SystemExit, "argument --gemm_plugin: invalid choice: 'int4'"),
        (["--context_fmha", "on"], SystemExit, "argument --context_fmha: invalid choice: 'on'"),
        (
            ["--multiple_profiles", "enable", "--opt_num_tokens", "8"],
            RuntimeError,
            "multiple_profiles is enabled, while opt_num_tokens is set",
        ),
        (["--streamingllm", "enable"], AssertionError, "StreamingLLM is no longer supported"),
        (["--speculative_decoding_mode", "medusa"], NotImplementedError, "the simulator does not implement --speculative_decoding_mode"),
    ],
)
@pytest.mark.usefixtures("inside")
def test_build_refuses(
    checkpoint: Path, tmp_path: Path, arguments: list[str], error: type[BaseException], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error) as raised:
        build.main(["--checkpoint_dir", str(checkpoint), "--output_dir", str(tmp_path / "engine"), *arguments])
    assert text in (capsys.readouterr().err if error is SystemExit else str(raised.value))
    assert not (tmp_path / "engine").exists()


@pytest.mark.usefixtures("inside")
def test_build_refuses_unknown_architectures(checkpoint: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, foreign)
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps({**config, "architecture": "OtherForCausalLM"}))
    with pytest.raises(AssertionError, match="Unsupported model architecture: OtherForCausalLM"):
        build.main(["--checkpoint_dir", str(foreign), "--output_dir", str(tmp_path / "engine")])


@pytest.mark.usefixtures("inside")
def test_build_needs_a_gpu(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATOR_GPUS", "0")
    with pytest.raises(RuntimeError, match="No CUDA GPUs are available"):
        build.main(["--checkpoint_dir", str(checkpoint), "--output_dir", str(tmp_path / "engine")])


def test_the_new_version_has_no_builder(new: Simulator) -> None:
    assert not (new.root / "bin/trtllm-build").exists()
    assert not Path(new.converter).exists()
    assert new.run("python", "-c", "import tensorrt_llm._tensorrt_engine").returncode == 1
    assert (new.root / "bin/trtllm-serve").exists()


def _convert_and_build(model: Path, tmp_path: Path) -> int:
    convert.main(["--model_dir", str(model), "--output_dir", str(tmp_path / "checkpoint")])
    arguments = ["--checkpoint_dir", str(tmp_path / "checkpoint"), "--output_dir", str(tmp_path / "engine")]
    return build.main([*arguments, "--output_timing_cache", str(tmp_path / "model.cache")])


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("gpu-oom", AssertionError, r"Engine building failed, please check error log\."),
        ("disk-full", OSError, r"\[Errno 28\] No space left on device"),
        ("unsupported", AssertionError, "Unsupported model architecture: "),
    ],
)
@pytest.mark.usefixtures("inside")
def test_faults_of_the_build(
    model: Path, tmp_path: Path, fault: str, error: type[Exception], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = broken(model, tmp_path / "model", build={"fail": fault})
    with pytest.raises(error, match=text):
        _convert_and_build(source, tmp_path)
    output = capsys.readouterr().out
    assert "Total time of building all engines" not in output
    assert ("Error Code 2: OutOfMemory (no further information)" in output) == (fault == "gpu-oom")


@pytest.mark.parametrize(("fault", "files"), [("no-engine", set()), ("half-engine", {"config.json", "rank0.engine"})])
@pytest.mark.usefixtures("inside")
def test_faults_that_look_like_success(model: Path, tmp_path: Path, fault: str, files: set[str]) -> None:
    assert _convert_and_build(broken(model, tmp_path / "model", build={"fail": fault}), tmp_path) == 0
    assert {path.name for path in (tmp_path / "engine").iterdir()} == files


@pytest.mark.parametrize(("fault", "text"), [("disk-full", "Checkpoint conversion failed"), ("unsupported", "Unsupported model")])
@pytest.mark.usefixtures("inside")
def test_faults_of_the_conversion(model: Path, tmp_path: Path, fault: str, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        _convert_and_build(broken(model, tmp_path / "model", convert={"fail": fault}), tmp_path)


def test_lack_of_host_memory_kills(old: Simulator, model: Path, tmp_path: Path) -> None:
    source = broken(model, tmp_path / "model", convert={"fail": "host-oom"})
    done = old.run(old.converter, "--model_dir", source, "--output_dir", tmp_path / "checkpoint")
    assert done.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("inside")
def test_an_unknown_fault_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"build\.fial"):
        _convert_and_build(broken(model, tmp_path / "model", build={"fial": "gpu-oom"}), tmp_path)


def test_nvidia_smi_query(old: Simulator) -> None:
    done = old.run(
        "nvidia-smi",
        PREFLIGHT,
        "--format=csv,noheader,nounits",
        SIMULATOR_GPUS="2",
        SIMULATOR_GPU="NVIDIA L40S",
        SIMULATOR_COMPUTE_CAPABILITY="8.9",
    )
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    assert [(row[0], row[1], row[3], row[7]) for row in rows] == [
        ("0", "NVIDIA L40S", "8.9", "Disabled"),
        ("1", "NVIDIA L40S", "8.9", "Disabled"),
    ]
    assert all(row[2].startswith("GPU-") and int(row[4]) > int(row[5]) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "text"),
    [
        (["--query-gpu=index,name", "--format=csv"], {"SIMULATOR_GPUS": "1"}, 0, "index, name\n0, NVIDIA H100 80GB HBM3\n"),
        (["--query-gpu=nonsense", "--format=csv"], {}, 2, 'Field "nonsense" is not a valid field to query.'),
        (["--bogus"], {}, 2, 'Option "--bogus" is not recognized.'),
        (["-L"], {"NVIDIA_VISIBLE_DEVICES": "3"}, 0, "GPU 3: NVIDIA H100 80GB HBM3 (UUID: GPU-"),
        ([], {"NVIDIA_VISIBLE_DEVICES": "void"}, 6, "No devices were found"),
        ([], {}, 0, "NVIDIA-SMI SIMULATOR (there is no GPU)"),
    ],
)
@pytest.mark.usefixtures("inside")
def test_nvidia_smi(
    arguments: list[str],
    environment: dict[str, str],
    status: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert nvidia_smi.main(arguments) == status
    assert text in capsys.readouterr().out
