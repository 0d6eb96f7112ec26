"""Names: valid for Kubernetes, unique, and stable."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from trtllm_operator.desired import names

DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
text = st.text(min_size=1, max_size=300)
owner = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,200}[a-z0-9])?", fullmatch=True)


@given(text, st.text("0123456789abcdef", min_size=64, max_size=64))
def test_build_names_are_dns_labels(repo: str, key: str) -> None:
    name = names.build_name({"repo": repo}, key)
    assert len(name) <= 47
    assert DNS_LABEL.match(name)
    assert names.job_name(name, "publish", 99).startswith(name)  # never cut, so never ambiguous


@given(owner, st.integers(1, 999))
def test_job_names_fit_a_label(name: str, attempt: int) -> None:
    job = names.job_name(name, "resolve", attempt, "0123456789")
    assert len(job) <= 63
    assert DNS_LABEL.match(job)


def test_cut_names_stay_apart() -> None:
    one, two = "a" * 80 + "1", "a" * 80 + "2"
    assert names.job_name(one, "verify", 1) != names.job_name(two, "verify", 1)
    assert names.label_value(one) != names.label_value(two)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c), max_leaves=8)
)
def test_digest_does_not_depend_on_order(value: object) -> None:
    wrapped = {"b": value, "a": 1}
    assert names.digest(wrapped) == names.digest({"a": 1, "b": value})


def test_stable_between_releases() -> None:
    """A change of these would build everything anew on upgrade."""
    source = {"kind": "huggingFace", "repo": "meta-llama/Llama-3.1-8B", "revision": "c" * 40}
    assert names.checkpoint_name(source) == "llama-3-1-8b-src-6f8974950c"
    assert names.slug("Meta/Llama_3.1 8B!", 20) == "llama-3-1-8b"
