"""Hostile text in every field that users write, on a real API server: it is refused, or kept byte by byte.

And the judgement is that of the Python copy of the schema by which tests/unit/test_injection.py sorts texts, so that what is proved there of
texts that are taken holds of all that a real API server takes.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.crd import objects
from tests.crd.conftest import NAMESPACE
from tests.crd.walk import VALUE, Path, dotted
from tests.support.api import Api, ApiRefusedError
from tests.unit.test_injection import PLACES, _make, _schema_at, _variants
from tests.unit.test_injection_schema import refusals
from trtllm_operator.kube.resources import BY_KIND

Json = dict[str, Any]
Place = tuple[str, Path, bool]

MORE = [
    "\u0000", "a\u0000", "--", "-x", "a/-x", "a/.x", "a/..", "a/../b", "..", ".", "/", "//", "a//b", "a/", "/a", "~", "${HF_TOKEN}", "$(id)",
    "%00", "%2e%2e/x", "a\u2028b", "a\u0085b", "\ufeffa", "\u200ba", "\uff41", "\U000e0001x", "é", "e\u0301", "{{x}}", "<script>", "a" * 300,
]  # fmt: skip


def _ids(place: Place) -> str:
    return f"{place[0]}.{dotted(place[1])}{':key' if place[2] else ''}"


def taken(api: Api, obj: Json) -> Json | None:
    """The object as it would be kept; None where it is refused for its content."""
    obj = {**obj, "metadata": {"name": obj["metadata"]["name"], "namespace": NAMESPACE}}
    try:
        found: Json = api.request("POST", BY_KIND[obj["kind"]].path(NAMESPACE), obj, dryRun="All", fieldValidation="Strict")
    except ApiRefusedError as error:
        if error.status not in (400, 422):
            raise
        return None
    return found


def _contains(kept: Any, sent: Any) -> bool:
    """All that was sent is there, byte by byte; defaults may be there as well."""
    if isinstance(sent, dict):
        return isinstance(kept, dict) and all(key in kept and _contains(kept[key], value) for key, value in sent.items())
    if isinstance(sent, list):
        return isinstance(kept, list) and len(kept) == len(sent) and all(map(_contains, kept, sent))
    return bool(kept == sent)


@pytest.mark.parametrize("place", PLACES, ids=map(_ids, PLACES))
def test_refused_or_kept_byte_by_byte(api: Api, place: Place) -> None:
    schema = {} if place[2] else _schema_at(place[0], place[1])
    for text in dict.fromkeys([*_variants(schema), *MORE]):
        obj = _make(place, text)
        kept = taken(api, obj)
        assert (kept is None) == bool(refusals(obj)), (
            f"{text[:60]!a}: the API server {'refuses' if kept is None else 'takes'} it; {refusals(obj)}"
        )
        if kept is not None:
            assert _contains(kept["spec"], obj["spec"]), f"{text[:60]!a}"


@pytest.mark.parametrize("place", PLACES, ids=map(_ids, PLACES))
def test_ten_thousand_characters_are_refused(api: Api, place: Place) -> None:
    """Everywhere but in the free values of serve.options, which the operator bounds."""
    free = place[1][-1] == VALUE and "x-kubernetes-preserve-unknown-fields" in _schema_at(place[0], place[1])
    for text in ("x" * 10240, "1" * 10240, "ü" * 10240):
        kept = taken(api, _make(place, text))
        assert (kept is not None) is (free or place[1][-1] == "options"), text[:4]


@pytest.mark.parametrize("kind", ["LLMEngine", "LLMService"])
def test_half_a_character_becomes_a_whole_one(api: Api, kind: str) -> None:
    """JSON can say a lone surrogate, UTF-8 can't: the API server replaces it, so that no program meets one."""
    obj = objects.whole(kind)
    if kind == "LLMEngine":
        obj["spec"]["verify"] = {"prompt": "a\ud800b"}
    else:
        obj["spec"]["serve"] = {"options": {"x": "a\ud800b"}}
    assert "\\ud800" in json.dumps(obj)
    kept = taken(api, obj)
    assert kept is not None
    assert "a\ufffdb" in json.dumps(kept, ensure_ascii=False)


REPOSITORIES = {
    "../x": False, "x/..": False, "a/..b": False, "a..b/c": False, ".x/y": False, "x/.y": False, "-x/y": False, "x/-y": False, "x/--y": False,
    "x//y": False, "/x": False, "x/": False, "x/y/z": False, "x\\y": False, "x/y\n": False, "x y": False, "": False, "x/y;z": False,
    "https://h/x": False, "x:y": False, "x/y@v": False, "owner/name-1.0_x": True, "gpt2": True, "_a/_b": True, "a-/b.": True,
}  # fmt: skip


@pytest.mark.parametrize(("repo", "good"), REPOSITORIES.items(), ids=map(repr, REPOSITORIES))
def test_repositories(api: Api, repo: str, good: bool) -> None:
    """No `..`, and no segment that begins with `-` or `.`."""
    obj = objects.whole("LLMEngine")
    obj["spec"]["source"]["huggingFace"]["repo"] = repo
    assert (taken(api, obj) is not None) is good
    if good:
        assert ".." not in repo
        assert not any(part.startswith(("-", ".")) for part in repo.split("/"))


@pytest.mark.parametrize("revision", ["../x", "a/../b", "-main", ".main", "a..b", "a b", "a\nb", "a?b", "a#b", "a:b", "", "x" * 201])
def test_revisions(api: Api, revision: str) -> None:
    obj = objects.whole("LLMEngine")
    obj["spec"]["source"]["huggingFace"]["revision"] = revision
    assert taken(api, obj) is None
