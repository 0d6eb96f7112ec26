"""The simulator's trtllm-serve, used through the official client."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from images.simulator.testing import Server, Simulator, make_model, program, serve, versions

from tests.cluster.ports import free_ports

ANSWER = (
    "TensorRT-LLM is a library from NVIDIA for fast inference with large language models. It turns a checkpoint into an engine, "
    "or loads it directly, and answers through an API that any OpenAI client understands."
)
QUESTION: Any = [{"role": "user", "content": "What is TensorRT-LLM?"}]
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    return Simulator("1.2.1", tmp_path_factory.mktemp("simulator") / "1.2.1")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    return Simulator("1.3.0rc29", tmp_path_factory.mktemp("simulator") / "1.3.0rc29")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def engine(old: Simulator, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("engine")
    done = old.run(old.converter, "--model_dir", model, "--output_dir", root / "checkpoint", "--tp_size", "2")
    assert done.returncode == 0, done.stderr
    sizes = ["--max_seq_len", "128", "--max_batch_size", "4", "--output_timing_cache", str(root / "model.cache")]
    done = old.run("trtllm-build", "--checkpoint_dir", root / "checkpoint", "--output_dir", root / "tiny-engine", *sizes)
    assert done.returncode == 0, done.stderr
    return root / "tiny-engine"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("options") / "options.yaml"
    path.write_text("return_perf_metrics: true\nenable_iter_perf_stats: true\nkv_cache_config: {max_tokens: 4096}\n")
    return path


@pytest.fixture(scope="module")
def engine_server(old: Simulator, engine: Path, model: Path) -> Iterator[Server]:
    with old.serve(engine, "--backend", "tensorrt", "--tokenizer", model) as server:
        yield server


@pytest.fixture(scope="module")
def checkpoint_server(new: Simulator, model: Path, options: Path) -> Iterator[Server]:
    with new.serve(model, "--served_model_name", "demo/name", "--tp_size", "2", "--extra_llm_api_options", options) as server:
        yield server


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs that run in the test's own process."""
    for variable in ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SIMULATOR_GPUS", "4")


@pytest.fixture(params=["engine_server", "checkpoint_server"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def broken(model: Path, target: Path, **faults: Any) -> Path:
    shutil.copytree(model, target)
    (target / "simulator.json").write_text(json.dumps(faults))
    return target


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with connect(server) as made:
        yield made


def connect(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30)


def get(server: Server, path: str) -> tuple[int, str]:
    try:
        with _LOCAL.open(f"{server.url}{path}", timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="any", messages=QUESTION)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens == 39
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 39


def test_chat_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="any", messages=QUESTION, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == ANSWER
    assert len(pieces) > 30
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 39


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="any", prompt=["The capital of France is", "What is TensorRT-LLM?"], max_tokens=4, n=2)
    assert [choice.text for choice in answer.choices] == [" Paris, as even"] * 2 + [" TensorRT-LLM is a library"] * 2
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    stream = client.completions.create(model="any", prompt="The capital of France is", stream=True, stop=["tiny"])
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == " Paris, as even a "


def test_a_prompt_that_leaves_no_room(checkpoint_server: Server) -> None:
    with connect(checkpoint_server) as client, pytest.raises(openai.BadRequestError, match="`default_max_tokens` "):
        client.completions.create(model="any", prompt=" engine" * 2100)


def test_seeds(client: openai.OpenAI) -> None:
    def ask(seed: int) -> str:
        return client.completions.create(model="any", prompt="An engine", temperature=2, seed=seed, max_tokens=20).choices[0].text

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(4)}) > 1


def test_requests_in_parallel_get_their_own_answers(client: openai.OpenAI) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        prompt = "The capital of France is" if number % 2 else "What is TensorRT-LLM?"
        answers[number] = client.completions.create(model="any", prompt=prompt, max_tokens=64).choices[0].text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: " Paris, as even a tiny model knows." if number % 2 else f" {ANSWER}" for number in range(8)}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": QUESTION, "nonsense": 1}, "Extra inputs are not permitted"),
        ({"messages": QUESTION, "temperature": -1}, "greater than or equal to 0"),
        ({"messages": QUESTION, "tools": [{}]}, "the simulator does not implement logprobs and tools"),
        ({"messages": [{"role": "user", "content": "engine " * 9000}]}, "should not exceed max_num_tokens ("),
    ],
)
def test_bad_requests(client: openai.OpenAI, body: dict[str, Any], text: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.post("/chat/completions", body={"model": "any", **body}, cast_to=object)
    assert text in str(error.value)


def test_endpoints_of_an_engine(engine_server: Server) -> None:
    assert get(engine_server, "/health") == (200, "")
    assert get(engine_server, "/health_generate") == (200, "Generation health check OK")
    assert json.loads(get(engine_server, "/version")[1]) == {"version": "1.2.1", "simulator": True}
    # The last component of the path is the public name.
    assert [card["id"] for card in json.loads(get(engine_server, "/v1/models")[1])["data"]] == ["tiny-engine"]
    assert get(engine_server, "/prometheus/metrics")[0] == 404
    assert "SIMULATOR" in engine_server.program.log.splitlines()[0]
    # Iteration statistics are there without an option, and gone when they have been read.
    assert "numActiveRequests" in json.loads(get(engine_server, "/metrics")[1])[0]
    assert json.loads(get(engine_server, "/metrics")[1]) == []


def test_endpoints_of_a_checkpoint(checkpoint_server: Server) -> None:
    assert get(checkpoint_server, "/health_generate")[0] == 200
    assert json.loads(get(checkpoint_server, "/version")[1])["version"] == "1.3.0rc29"
    assert [card["id"] for card in json.loads(get(checkpoint_server, "/v1/models")[1])["data"]] == ["demo/name"]
    stats = json.loads(get(checkpoint_server, "/metrics")[1])
    assert stats[-1]["numActiveRequests"] == 0
    assert stats[-1]["kvCacheStats"]["maxNumBlocks"] == 128
    metrics = get(checkpoint_server, "/prometheus/metrics")[1]
    labels = '{engine_type="trtllm",model_name="demo/name"}'
    for line in (
        f"trtllm_num_requests_running{labels} 0.0",
        f"trtllm_kv_cache_utilization{labels} 0.0",
        f"trtllm_kv_cache_max_blocks{labels} 128.0",
    ):
        assert line in metrics
    assert "trtllm_request_success_total{" in metrics


def test_the_old_version_has_other_metrics(old: Simulator, model: Path, options: Path) -> None:
    with old.serve(model, "--extra_llm_api_options", options) as server, connect(server) as client:
        client.completions.create(model="any", prompt="An engine", max_tokens=2)
        metrics = get(server, "/prometheus/metrics")[1]
        assert 'request_success_total{engine_type="undefined",finished_reason="length",model_name="undefined"} 1.0' in metrics
        assert "trtllm_" not in metrics


def command(version: str, arguments: list[str]) -> None:
    """trtllm-serve in this process, for what ends before a server is started."""
    argv = arguments if arguments[0] == "disaggregated" else ["--port", "0", *arguments]
    serve.command(versions.of(version))(argv, prog_name="trtllm-serve")


@pytest.mark.parametrize(
    ("version", "arguments", "error", "text"),
    [
        ("1.2.1", ["{model}", "--served_model_name", "x"], SystemExit, "No such option '--served_model_name'"),
        ("1.2.1", ["{model}", "--api_key", "x"], SystemExit, "No such option '--api_key'"),
        ("1.2.1", ["{model}", "--backend", "vllm"], SystemExit, "Invalid value for '--backend': 'vllm' is not one of"),
        ("1.2.1", ["{model}", "--tp_size", "3"], AssertionError, "must be divisible by tp_size (3)"),
        ("1.2.1", ["{model}", "--tp_size", "4", "--pp_size", "2"], RuntimeError, "Only 4 GPUs are available, but 8 are required."),
        ("1.2.1", ["{engine}"], ValueError, "Unrecognized model in"),
        (
            "1.2.1",
            ["{engine}", "--backend", "trt", "--tp_size", "4"],
            ValueError,
            "tp_size 4 is not consistent with the engine's tp_size 2",
        ),
        ("1.2.1", ["{engine}", "--backend", "trt"], AttributeError, "'NoneType' object has no attribute 'tokenizer'"),
        ("1.2.1", ["{model}", "--extra_llm_api_options", "{bad}"], ValueError, "nonsense"),
        ("1.2.1", ["{model}", "--extra_llm_api_options", "{bad_nested}"], ValueError, "kv_cache_config.nonsense"),
        ("1.2.1", ["/nowhere/model"], OSError, "/nowhere/model is not a directory"),
        (
            "1.3.0rc29",
            ["{model}", "--backend", "tensorrt"],
            SystemExit,
            "Invalid value for '--backend': 'tensorrt' is not one of 'pytorch', '_autodeploy'",
        ),
        ("1.3.0rc29", ["{engine}"], ValueError, "Unrecognized model in"),
        ("1.3.0rc29", ["{model}", "--tool_parser", "qwen3"], NotImplementedError, "the simulator does not implement --tool_parser"),
        ("1.3.0rc29", ["disaggregated", "-c", "x"], SystemExit, "the simulator does not implement `trtllm-serve disaggregated`"),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_refusals(
    model: Path,
    engine: Path,
    tmp_path: Path,
    version: str,
    arguments: list[str],
    error: type[BaseException],
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"model": str(model), "engine": str(engine)}
    for name, content in (("bad", "nonsense: true\n"), ("bad_nested", "kv_cache_config: {nonsense: 1}\n")):
        (tmp_path / name).write_text(content)
        places[name] = str(tmp_path / name)
    with pytest.raises(error) as raised:
        command(version, [argument.format(**places) for argument in arguments])
    if isinstance(raised.value, SystemExit):
        assert raised.value.code == (1 if arguments[0] == "disaggregated" else 2)
        assert text in capsys.readouterr().err
    else:
        assert text in str(raised.value)


@pytest.mark.parametrize(
    ("change", "capability", "text"),
    [
        ({}, "8.9", "generated on an incompatible device, expecting compute 8.9 got compute 9.0, please rebuild."),
        ({b"10.14.1.48": b"10.13.3.90"}, "9.0", "expecting library version 10.14.1.48 got 10.13.3.90, please rebuild."),
        ({b"TRTLLM-SIMULATOR-ENGINE": b"an engine for a real GP"}, "9.0", "Magic tag does not match"),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_engines_are_tied_to_version_and_gpu(
    engine: Path, model: Path, tmp_path: Path, change: dict[bytes, bytes], capability: str, text: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    copy = tmp_path / "engine"
    shutil.copytree(engine, copy)
    for before, after in change.items():
        (copy / "rank1.engine").write_bytes((copy / "rank1.engine").read_bytes().replace(before, after))
    monkeypatch.setenv("SIMULATOR_COMPUTE_CAPABILITY", capability)
    with pytest.raises(RuntimeError, match="Failed to deserialize cuda engine"):
        command("1.2.1", [str(copy), "--backend", "tensorrt", "--tokenizer", str(model)])
    assert text in capsys.readouterr().out


@pytest.mark.usefixtures("four_gpus")
def test_a_half_engine(engine: Path, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(engine, copy)
    content = (copy / "rank1.engine").read_bytes()
    (copy / "rank1.engine").write_bytes(content[: len(content) // 2])
    with pytest.raises(RuntimeError, match="Failed to deserialize cuda engine"):
        command("1.2.1", [str(copy), "--backend", "tensorrt", "--tokenizer", str(model)])


def test_errors_end_with_status_1_and_the_cause_last(new: Simulator, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = new.run("trtllm-serve", model, "--host", "127.0.0.1", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: Failed to bind socket to 127.0.0.1:")


def test_nothing_listens_while_the_model_loads(new: Simulator, model: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    source = broken(model, tmp_path / "model", serve={"fail": "hang"})
    argv = ["trtllm-serve", str(source), "--host", "127.0.0.1", "--port", str(port)]
    with program([str(new.root / "bin" / argv[0]), *argv[1:]], new.environment()) as running:
        running.wait_for("Using LLM with PyTorch backend")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        assert running.end(signal.SIGKILL) == -signal.SIGKILL


def running(server: Server) -> str:
    """Value of the gauge of running requests."""
    return next(
        line.split()[-1] for line in get(server, "/prometheus/metrics")[1].splitlines() if line.startswith("trtllm_num_requests_running{")
    )


def test_clients_that_leave_and_sigterm(new: Simulator, model: Path, options: Path, tmp_path: Path) -> None:
    """Who goes away is not computed for any longer; on SIGTERM open requests are finished."""
    source = broken(model, tmp_path / "model", serve={"tokenDelay": 0.03})
    with new.serve(source, "--config", options) as server, connect(server) as client:
        endless = client.completions.create(model="any", prompt="An engine", stream=True, extra_body={"ignore_eos": True}, max_tokens=2000)
        next(iter(endless))
        assert running(server) == "1.0"
        endless.close()
        deadline = time.monotonic() + 10
        while running(server) != "0.0":
            assert time.monotonic() < deadline
        stream = client.chat.completions.create(model="any", messages=QUESTION, stream=True)
        pieces = [next(iter(stream)).choices[0].delta.content or ""]
        server.program.process.send_signal(signal.SIGTERM)
        server.program.wait_for("Shutting down")
        pieces += [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(pieces) == ANSWER
        assert server.program.end() == -signal.SIGTERM
        assert "Application shutdown complete" in server.program.log


def test_a_crash_ends_the_server(old: Simulator, model: Path, tmp_path: Path) -> None:
    source = broken(model, tmp_path / "model", serve={"crashAfterTokens": 5})
    with old.serve(source) as server, connect(server) as client:
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="any", messages=QUESTION)
        assert server.program.end() != 0
        assert "Executor loop crashed on this rank" in server.program.log


def test_a_crash_that_lingers(new: Simulator, model: Path, tmp_path: Path) -> None:
    source = broken(model, tmp_path / "model", serve={"crashAfterTokens": 5, "crash": "linger"})
    with new.serve(source) as server, connect(server) as client:
        with pytest.raises(openai.APIError):
            list(client.chat.completions.create(model="any", messages=QUESTION, stream=True))
        assert get(server, "/health") == (503, "LLM is unavailable. Please check the server logs for more details.")
        assert server.program.process.poll() is None


def test_a_health_check_that_lies(new: Simulator, model: Path, tmp_path: Path) -> None:
    source = broken(model, tmp_path / "model", serve={"healthLies": True})
    with new.serve(source) as server:
        assert get(server, "/health_generate")[0] == 500
        assert get(server, "/health")[0] == 200


@pytest.mark.parametrize(
    ("fault", "text"), [("gpu-oom", "Executor creation failed due to insufficient GPU memory."), ("nccl", "NCCL error")]
)
@pytest.mark.usefixtures("four_gpus")
def test_failures_of_loading(model: Path, tmp_path: Path, fault: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="Executor worker returned error"):
        command("1.3.0rc29", [str(broken(model, tmp_path / "model", serve={"fail": fault}))])
    assert text in capsys.readouterr().out
