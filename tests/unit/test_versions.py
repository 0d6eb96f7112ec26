"""The version table: which recipe, which flags, which refusals."""

from __future__ import annotations

import pytest

from trtllm_operator.api import versions


@pytest.mark.parametrize(
    ("version", "recipe"),
    [
        ("1.0.0", "TensorRTEngine"),
        ("1.1.0rc2.post2", "TensorRTEngine"),
        ("1.2.1", "TensorRTEngine"),
        ("1.3.0rc5", "HFCheckpoint"),
        ("1.3.0rc20", "HFCheckpoint"),
        ("1.3.0rc22", "HFCheckpoint"),
        ("1.3.0rc29", "HFCheckpoint"),
        ("1.4.0rc1", "HFCheckpoint"),
    ],
)
def test_automatic_recipe(version: str, recipe: str) -> None:
    assert versions.recipe(version, "auto") == recipe
    assert versions.recipe(version, "pytorch") == "HFCheckpoint"


@pytest.mark.parametrize("version", ["1.0.0", "1.2.1", "1.3.0rc20"])
def test_tensorrt_where_trtllm_build_exists(version: str) -> None:
    assert versions.recipe(version, "tensorrt") == "TensorRTEngine"


@pytest.mark.parametrize("version", ["1.3.0rc21", "1.3.0rc29", "1.3.0", "1.4.0rc1"])
def test_tensorrt_refused_after_the_removal(version: str) -> None:
    with pytest.raises(versions.VersionRefused, match="no trtllm-build") as caught:
        versions.recipe(version, "tensorrt")
    assert caught.value.reason == "BackendNotAvailable"


@pytest.mark.parametrize("version", ["0.21.0", "2.0.0", "1.3.0rc27", "nonsense"])
def test_unsupported(version: str) -> None:
    with pytest.raises(versions.VersionRefused) as caught:
        versions.row(version)
    assert caught.value.reason == "UnsupportedVersion"


def test_rows_are_in_order_and_have_sources() -> None:
    from packaging.version import Version  # noqa: PLC0415

    rows = versions.supported()
    assert [r.first for r in rows] == sorted((r.first for r in rows), key=Version)
    assert all(row.source for row in rows)
    assert all(row.converters for row in rows if row.builds_engines)


def test_converter() -> None:
    assert versions.converter("1.2.1", "LlamaForCausalLM") == "/app/tensorrt_llm/examples/models/core/llama/convert_checkpoint.py"
    with pytest.raises(versions.VersionRefused, match="backend to pytorch"):
        versions.converter("1.2.1", "DeepseekV3ForCausalLM")
