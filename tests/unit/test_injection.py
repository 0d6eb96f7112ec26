"""Hostile text in every field of every spec: the API server refuses it, or it arrives byte by byte, in the one place that is meant for it.

For each field two objects are rendered that differ in the field alone: one with harmless text and one with hostile text. Everything that
is made from the second must be what is made from the first with the one text in the place of the other: no word more, no flag, no path.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.crd import objects
from tests.crd.walk import VALUE, Path, dotted
from tests.support.flow import engine_object
from tests.unit.test_injection_rendering import check_names, check_paths, environment, plain, pod_templates, programs, render
from tests.unit.test_injection_reports import HOSTILE
from tests.unit.test_injection_schema import KINDS, SCHEMAS, maps, refusals, texts
from tests.unit.test_service_world import service_object
from trtllm_operator.api import versions
from trtllm_operator.api.llmengine import OWN_BUILD_FLAGS, LLMEngineSpec
from trtllm_operator.api.llmservice import LLMServiceSpec

Json = dict[str, Any]

CANARY = "hf_canaryCANARYcanary0123456789"
SECRETS = {"HF_TOKEN": CANARY}
HARMLESS = "harmless0"


def _object(kind: str, spec: Json) -> Json:
    made = engine_object() if kind == "LLMEngine" else service_object()
    return {**made, "spec": spec}


def _around(kind: str, obj: Json) -> Json:
    """With what a build needs that the field's own object leaves out."""
    spec = copy.deepcopy(obj["spec"])
    if kind == "LLMEngine":
        spec.setdefault("accelerator", {}).setdefault("computeCapability", "9.0")
        spec["source"].get("huggingFace", {}).setdefault("tokenSecretRef", {"name": "hub", "key": "token"})
    return _object(kind, spec)


def _rendered(kind: str, obj: Json) -> list[Json]:
    obj = copy.deepcopy(obj)
    if kind == "LLMEngine":
        return render(obj, service_object())
    engine = engine_object(obj["spec"]["engineRef"]["name"], source={"huggingFace": {"repo": "a/b", "tokenSecretRef": {"name": "hub"}}})
    if "/" in obj["spec"].get("serve", {}).get("servedModelName", ""):
        engine["spec"]["runtime"]["version"] = "1.3.0rc29"  # older ones can't serve such a name
    return render(engine, obj)


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, Mapping):
        return {_replaced(key, old, new): _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return value.replace(old, new) if isinstance(value, str) else value


def _variants(schema: Mapping[str, Any]) -> Iterator[str]:
    """Hostile text as it is, and so that it fits more patterns."""
    sample = objects.PATTERNS.get(schema.get("pattern", ""), objects.Sample(""))
    for text in HOSTILE:
        yield text[:200]
        if text and "pattern" in schema:
            yield f"{sample.head}{text[:200]}{sample.tail}"
            yield f"a{text[:40]}"


def _at(kind: str, path: Path, value: Any) -> Json:
    return _around(kind, objects.with_value(kind, SCHEMAS[kind], path, lambda _: value))


def _with_key(kind: str, path: Path, key: str) -> Json:
    value = objects.smallest(_schema_at(kind, (*path, VALUE)), (*path, VALUE))
    return _around(kind, objects.with_value(kind, SCHEMAS[kind], path, lambda _: {key: value}))


def _schema_at(kind: str, path: Path) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = SCHEMAS[kind]
    for name in path:
        schema = schema["additionalProperties"] if name == VALUE else schema["items"] if name == "[]" else schema["properties"][name]
    return schema


# (kind, path, whether the key of a map is meant)
PLACES = [(kind, path, False) for kind in KINDS for path, _ in texts(kind)] + [(kind, path, True) for kind in KINDS for path in maps(kind)]


def _ids(place: tuple[str, Path, bool]) -> str:
    return f"{place[0]}.{dotted(place[1])}{':key' if place[2] else ''}"


def _make(place: tuple[str, Path, bool], text: str) -> Json:
    kind, path, is_key = place
    return _with_key(kind, path, text) if is_key else _at(kind, path, text)


_TYPES = {"LLMEngine": LLMEngineSpec, "LLMService": LLMServiceSpec}


def _is_taken(obj: Json) -> bool:
    """By the API server and then by the types, which bound the keys of serve.options: no rule can reach them."""
    if refusals(obj):
        return False
    try:
        _TYPES[obj["kind"]].model_validate(obj["spec"])
    except ValidationError:
        assert any(len(key) > 64 for key in obj["spec"]["serve"]["options"]), "the types refuse what the API server takes"
        return False
    return True


@cache
def _harmless(place: tuple[str, Path, bool]) -> tuple[str, list[Any]]:
    """Harmless text that the field takes, and what is made from it."""
    schema = {} if place[2] else _schema_at(place[0], place[1])
    sample = objects.PATTERNS.get(schema.get("pattern", ""), objects.Sample(""))
    for text in (HARMLESS, f"{sample.head}{HARMLESS}", f"example.test/{HARMLESS}"):
        if not refusals(_make(place, text)):
            return text, plain(_rendered(place[0], _make(place, text)), SECRETS)
    raise AssertionError(f"{_ids(place)} takes hostile text and no harmless one")


@cache
def accepted(place: tuple[str, Path, bool]) -> list[str]:
    """Hostile texts that the API server takes."""
    found = [
        text
        for text in dict.fromkeys(_variants({} if place[2] else _schema_at(place[0], place[1])))
        if text and _is_taken(_make(place, text))
    ]
    if _ids(place) == "LLMService.spec.engineRef.name":
        return [text for text in found if not refusals(engine_object(text))]  # there can be no such LLMEngine
    return found


@pytest.mark.parametrize("place", PLACES, ids=map(_ids, PLACES))
def test_refused_or_byte_by_byte(place: tuple[str, Path, bool]) -> None:
    for text in accepted(place):
        made = _rendered(place[0], _make(place, text))
        harmless, wanted = _harmless(place)
        assert plain(made, SECRETS) == _replaced(wanted, harmless, text), f"{text[:40]!r} in {_ids(place)}"
        check_all(made)


def check_all(made: list[Json]) -> None:
    """What holds of anything that is made, whatever is in it."""
    check_names(made)
    check_paths(made, SECRETS)
    check_flags(made)
    check_canary(made)


# Flags of each program, by the beginning of its command; nothing that a user writes adds one, but extraArgs.
_FLAGS = {
    ("python3", "/opt/trtllm-operator/stage.pyz"): {"--request"},
    ("python3", "/tools/stage.pyz"): {"--request"},
    ("nvidia-smi",): {"--query-gpu", "--format"},
    ("python3", "/tools/llmapi_smoke.py"): {
        "--model", "--tokenizer", "--backend", "--tensor-parallel-size", "--pipeline-parallel-size", "--max-batch-size", "--max-num-tokens",
        "--max-seq-len", "--max-tokens", "--prompt",
    },
    ("python3", "/app/tensorrt_llm/examples/models/core"): {"--model_dir", "--output_dir", "--dtype", "--tp_size", "--pp_size", "--workers"},
    ("trtllm-serve",): {
        "--host", "--port", "--backend", "--tokenizer", "--served_model_name", "--tp_size", "--pp_size", "--max_batch_size",
        "--max_num_tokens", "--max_seq_len", "--kv_cache_free_gpu_memory_fraction", "--reasoning_parser", "--tool_parser",
        "--enable_chunked_prefill", "--extra_llm_api_options",
    },
}  # fmt: skip


def check_flags(made: list[Json]) -> None:
    """Words that programs take for flags are those that are meant as flags."""
    engine = next(obj for obj in made if obj["kind"] == "LLMEngine")
    given_flags = {arg["flag"] for arg in engine["spec"].get("build", {}).get("extraArgs", ())}
    for words in programs(made, SECRETS):
        if words[0] == "trtllm-build":
            flags = [word.split("=", 1)[0] for word in words if word.startswith("-")]
            own = [flag for flag in flags if flag not in given_flags]
            assert len(own) == len(set(own)), words
            assert set(own) <= set(OWN_BUILD_FLAGS), words
            continue
        known = [
            allowed for start, allowed in _FLAGS.items() if all(a == b or a.startswith(f"{b}/") for a, b in zip(words, start, strict=False))
        ]
        assert len(known) == 1, words[:2]
        found = {word.split("=", 1)[0] for i, word in enumerate(words) if word.startswith("-") and words[i - 1] != "--request"}
        assert found <= known[0], words


def check_canary(made: list[Json]) -> None:
    """A token in a Secret gets into no command and no other variable, and stands in no object."""
    assert CANARY not in str(made)
    assert not any(CANARY in word for words in programs(made, SECRETS) for word in words)
    for _, template in pod_templates(made):
        for container in template["spec"]["containers"]:
            assert {name for name, value in environment(container, SECRETS).items() if CANARY in value} <= {"HF_TOKEN"}


def test_the_fields_that_take_nearly_anything_are_known() -> None:
    """All others are bounded by a pattern. A new one is looked at by a person."""
    free = {_ids(place) for place in PLACES if len(accepted(place)) > 10}
    assert free == {
        "LLMEngine.spec.source.huggingFace.endpoint",
        "LLMEngine.spec.source.huggingFace.allowPatterns[]",
        "LLMEngine.spec.source.huggingFace.ignorePatterns[]",
        "LLMEngine.spec.build.extraArgs[].value",
        "LLMEngine.spec.verify.prompt",
        "LLMService.spec.serve.options.*",
        "LLMService.spec.serve.options:key",
    }


@pytest.mark.parametrize("place", PLACES, ids=map(_ids, PLACES))
def test_text_of_ten_thousand_characters_is_refused(place: tuple[str, Path, bool]) -> None:
    kind, path, is_key = place
    if path[-1] == VALUE and "x-kubernetes-preserve-unknown-fields" in _schema_at(kind, path):
        return  # the API server bounds the whole object
    del is_key
    assert not _is_taken(_make(place, "x" * 10240))
    assert not _is_taken(_make(place, "1" * 10240))


_words = st.text(min_size=1, max_size=20) | st.sampled_from([text for text in HOSTILE if 0 < len(text) < 200])
_no_nul = _words.filter(lambda text: "\0" not in text)


@settings(max_examples=40, deadline=None)
@given(
    prompt=_no_nul,
    values=st.lists(_no_nul, max_size=3),
    patterns=st.lists(_words, max_size=3),
    options=st.dictionaries(st.from_regex("x[a-z]{0,5}", fullmatch=True), st.recursive(_words | st.floats(allow_nan=False), st.lists)),
)
def test_any_text_arrives(prompt: str, values: list[str], patterns: list[str], options: Json) -> None:
    """The free fields, with generated text, all at once."""
    flags = ["--profiling_verbosity", "--logits_dtype", "--lora_dir"]
    engine = engine_object(
        source={"huggingFace": {"repo": "a/b", "tokenSecretRef": {"name": "hub"}, "allowPatterns": patterns, "ignorePatterns": patterns}},
        build={"extraArgs": [{"flag": flag, "value": value} for flag, value in zip(flags, values, strict=False)]},
        verify={"prompt": prompt},
    )
    service = service_object(serve={"options": options})
    assert refusals(engine) == refusals(service) == []
    made = render(engine, service)
    check_all(made)
    every = list(programs(made, SECRETS))
    build = next(words for words in every if words[0] == "trtllm-build")
    assert build[len(build) - len(values) :] == [f"{flag}={value}" for flag, value in zip(flags, values, strict=False)]
    assert next(words for words in every if "/tools/llmapi_smoke.py" in words)[-1] == f"--prompt={prompt}"
    shown = plain(made, SECRETS)
    asked = [c["request"] for obj in shown if obj["kind"] == "Job" for c in obj["spec"]["template"]["containers"] if c["request"]]
    sources = [request["source"] for request in asked if request["stage"] in ("resolve", "fetch")]
    assert [source["allowPatterns"] for source in sources] == [patterns, patterns]
    assert [source["ignorePatterns"] for source in sources] == [patterns, patterns]
    assert [obj["data"] for obj in shown if obj["kind"] == "ConfigMap"] == ([[options]] if options else [])


_name = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,12}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,12}[a-z0-9])?){0,3}", fullmatch=True)


@settings(max_examples=40, deadline=None)
@given(
    name=_name | st.integers(1, 63).map(lambda n: "e" * n) | st.integers(20, 52).map(lambda n: "e" * n + "-.x.y"[n % 3 + 1 :]),
    service=st.from_regex(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True),
    repo=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,90}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,90})?", fullmatch=True),
    version=st.sampled_from([row.first for row in versions.supported() if row.first != "1.3.0rc7"]),
)
def test_names_of_any_length_make_valid_names(name: str, service: str, repo: str, version: str) -> None:
    engine = engine_object(name, source={"huggingFace": {"repo": repo, "tokenSecretRef": {"name": "hub"}}}, runtime={"version": version})
    wanted = {**service_object(service, engineRef={"name": name})}
    if refusals(engine) or refusals(wanted):
        return
    check_all(render(engine, wanted))
