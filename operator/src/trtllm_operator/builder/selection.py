"""Which files of a repository or directory make up a model. One rule for resolve and fetch, so that both count the same bytes."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trtllm_operator.builder.files import Entry
from trtllm_operator.builder.report import Failure

# Never, whatever a user allows: code, formats that run code when they are loaded (pickle), hidden files.
NEVER = (
    *("*.py", "*.pyc", "*.so", "*.sh", "*.exe", "*.dll", "*.ipynb", "*.jar"),
    *(
        "*.bin",
        "*.pth",
        "*.pt",
        "*.ckpt",
        "*.pkl",
        "*.pickle",
        "*.joblib",
        "*.npy",
        "*.npz",
        "*.nemo",
        "*.zip",
        "*.tar",
        "*.tar.gz",
        "*.tgz",
    ),
    *(".*", "*/.*"),
)
# Not unless a user gives ignorePatterns of their own: the same weights once more in another format, and pictures.
IGNORE = (
    *("*.gguf", "*.onnx", "*.onnx_data", "*.msgpack", "*.h5", "*.tflite", "*.mlmodel", "*.ot"),
    *("original/*", "consolidated*", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.svg", "*.mp4", "*.pdf"),
)

MOST = 10_000
"""Files of a model at most: the largest have some hundreds, and each stands in the manifest with its hash."""


def _matches(path: str, patterns: Iterable[str]) -> bool:
    # As huggingface_hub does it: `*` also matches slashes, and a pattern that ends in a slash means all below.
    return any(fnmatch.fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)


def select(entries: Iterable[Entry], source: Mapping[str, Any]) -> list[Entry]:
    """The files that make up the model, sorted.

    Args:
        entries: all files.
        source: may hold `allowPatterns` and `ignorePatterns`; without the latter, `IGNORE` applies.
    """
    allow: Sequence[str] | None = source.get("allowPatterns") or None
    ignore: Sequence[str] = IGNORE if source.get("ignorePatterns") is None else source["ignorePatterns"]
    return sorted(
        entry
        for entry in entries
        if not _matches(entry.path.lower(), NEVER) and (allow is None or _matches(entry.path, allow)) and not _matches(entry.path, ignore)
    )


def check(chosen: Sequence[Entry], every: Iterable[Entry], where: str) -> None:
    """Check that what was chosen can be a checkpoint in Hugging Face layout.

    Raises:
        Failure: InvalidModel, with what is missing.
    """
    names = {entry.path for entry in chosen}
    if len(names) > MOST:
        raise Failure(
            "InvalidModel",
            f"{where} has {len(names)} files, and at most {MOST} make up a model. Choose fewer by allowPatterns or ignorePatterns",
        )
    if "config.json" not in names:
        raise Failure("InvalidModel", f"{where} has no config.json{_filtered('config.json', every)}. Use a model in Hugging Face layout")
    if not any(name.endswith(".safetensors") and "/" not in name for name in names):
        others = sorted({entry.path for entry in every} - names)
        unsafe = [name for name in others if _matches(name.lower(), ("*.bin", "*.pth", "*.pt", "*.ckpt"))]
        why = f"; its weights are in {unsafe[0]}, a format that can run code when it is loaded, which is never fetched" if unsafe else ""
        hidden = next((_filtered(name, every) for name in others if name.endswith(".safetensors")), "")
        raise Failure("InvalidModel", f"{where} has no *.safetensors at its top{hidden}{why}. Use a repository with safetensors weights")


def _filtered(name: str, every: Iterable[Entry]) -> str:
    return f" that the patterns let through ({name} is there)" if any(entry.path == name for entry in every) else ""
