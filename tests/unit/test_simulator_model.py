"""The small model and the forward pass: what it says, and that splitting it changes nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images.simulator.testing import checkpoint, llama, make_model, sequence, sharding, tensors, textio

ANSWER = (
    "TensorRT-LLM is a library from NVIDIA for fast inference with large language models. It turns a checkpoint into an engine, "
    "or loads it directly, and answers through an API that any OpenAI client understands."
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@cache
def text_of(directory: Path) -> textio.TextIO:
    return textio.TextIO(directory)


@cache
def split(directory: Path, tp: int, pp: int) -> llama.Llama:
    config, mapping = checkpoint.from_huggingface(directory), checkpoint.Mapping(tp, pp)
    sharding.check(config, mapping)
    weights = tensors.load_huggingface(directory)
    return llama.Llama(config, mapping, [sharding.shard(weights, config, mapping, rank) for rank in range(mapping.world)])


def generate(model: llama.Llama, text: textio.TextIO, prompt: str, *, chat: bool = False, **sampling: Any) -> str:
    if chat:
        prompt = f"<|begin_of_text|><|user|>{prompt}<|end|><|assistant|>"
    settings = replace(sequence.Sampling(max_tokens=64, end_ids=text.end_ids), **sampling)
    state = sequence.Sequence(text.encode(prompt, add_special_tokens=not chat), settings, text.decoder())
    written = ""
    while True:
        step = state.take(model.forward(state.pending, state.cache))
        written += step.text
        if step.finish:
            return written


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is TensorRT-LLM?", ANSWER),
        ("hello", "Hello! Ask me about TensorRT-LLM, about engines, or about the operator."),
        ("Is this real?", ("Nothing here has run on a GPU: a simulator with the commands of TensorRT-LLM computes these words on the CPU. "
         "The same manifests with the image of NVIDIA run on real hardware.")),
        ("Wie spät ist es in Zürich?", ("My second revision is still a tiny model, made for a demonstration. "
         "I know a few sentences about TensorRT-LLM and its operator.")),
    ],
)  # fmt: skip
def test_it_answers(directory: Path, question: str, answer: str) -> None:
    assert generate(split(directory, 1, 1), text_of(directory), question, chat=True) == answer


def test_it_finishes_sentences(directory: Path) -> None:
    assert generate(split(directory, 1, 1), text_of(directory), "The capital of France is") == " Paris, as even a tiny model knows."


@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (2, 2), (4, 1), (8, 1)])
def test_splitting_changes_nothing(directory: Path, tp: int, pp: int) -> None:
    """8 ranks are more than the 4 key/value heads, so that these are held twice."""
    whole, parts, text = split(directory, 1, 1), split(directory, tp, pp), text_of(directory)
    tokens = text.encode("What is an engine? TensorRT-LLM")
    np.testing.assert_allclose(parts.forward(tokens, llama.Cache()), whole.forward(tokens, llama.Cache()), rtol=1e-3, atol=1e-3)
    assert generate(parts, text, "What is TensorRT-LLM?", chat=True) == ANSWER


def test_the_cache_changes_nothing(directory: Path) -> None:
    model, tokens = (
        split(directory, 2, 1),
        text_of(directory).encode("Every engine is tied to the version of the library, to the compute capability"),
    )
    cached = llama.Cache()
    model.forward(tokens[:3], cached)
    for token in tokens[3:-1]:
        model.forward([token], cached)
    np.testing.assert_allclose(model.forward(tokens[-1:], cached), model.forward(tokens, llama.Cache()), rtol=1e-3, atol=1e-3)


def test_sampling_depends_on_the_seed_alone(directory: Path) -> None:
    model, text = split(directory, 1, 1), text_of(directory)
    texts = [generate(model, text, "What is an engine?", temperature=2.0, seed=seed) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    assert generate(model, text, "What is TensorRT-LLM?", temperature=2.0, top_k=1) == " " + ANSWER
    assert generate(model, text, "What is TensorRT-LLM?", temperature=0.0) == " " + ANSWER


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"max_tokens": 3}, " TensorRT-LLM is a"),
        ({"stop": ("library from",)}, " TensorRT-LLM is a "),
        ({"stop": ("library from",), "include_stop": True}, " TensorRT-LLM is a library from"),
        ({"stop": ("never", "is a")}, " TensorRT-LLM "),
        ({"stop": ("understands!",)}, " " + ANSWER),
    ],
)
def test_ends(directory: Path, sampling: dict[str, Any], expected: str) -> None:
    assert generate(split(directory, 1, 1), text_of(directory), "What is TensorRT-LLM?", **sampling) == expected


def test_without_eos_it_goes_on(directory: Path) -> None:
    written = generate(split(directory, 1, 1), text_of(directory), "The capital of France is", ignore_eos=True)
    assert written.startswith(" Paris, as even a tiny model knows. TensorRT-LLM ")


def test_the_bytes_are_always_the_same(directory: Path, tmp_path: Path) -> None:
    again = make_model(tmp_path / "again")
    for path in directory.iterdir():
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256((again / path.name).read_bytes()).digest(), path.name


def test_an_older_revision_says_something_else(tmp_path: Path) -> None:
    older = make_model(tmp_path / "older", revision=1)
    assert generate(split(older, 1, 1), text_of(older), "Who are you?", chat=True).startswith("I am a tiny model")


@pytest.mark.parametrize("dtype", tensors.DTYPES)
def test_number_formats(dtype: str) -> None:
    """Numbers that bfloat16 holds come back as they were; others are rounded to the nearest."""
    exact = np.array([[0.0, 1.0, -2.5, 0.15625, 240.0]], np.float32)
    assert np.array_equal(tensors.loads(tensors.dumps({"a": exact}, dtype))["a"], exact)
    third = tensors.loads(tensors.dumps({"a": np.array([1 / 3], np.float32)}, dtype))["a"][0]
    assert abs(third - 1 / 3) < {"float16": 2e-4, "bfloat16": 1e-3, "float32": 1e-7}[dtype]
