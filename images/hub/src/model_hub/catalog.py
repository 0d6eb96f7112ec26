"""What the demo's hub offers: a model that works, and one for each way in which something can go wrong."""

from __future__ import annotations

import json
from typing import Any

from model_hub.store import Blob, Repository, repository
from model_hub.tiny_llama import files

# simulator.json of each `demo/broken-NAME`: see images/simulator/README.md.
BROKEN: dict[str, dict[str, Any]] = {
    "convert-disk-full": {"convert": {"fail": "disk-full"}},
    "convert-host-oom": {"convert": {"fail": "host-oom"}},
    "convert-unsupported": {"convert": {"fail": "unsupported"}},
    "build-gpu-oom": {"build": {"fail": "gpu-oom"}},
    "build-host-oom": {"build": {"fail": "host-oom"}},
    "build-disk-full": {"build": {"fail": "disk-full"}},
    "build-unsupported": {"build": {"fail": "unsupported"}},
    "build-no-engine": {"build": {"fail": "no-engine"}},
    "build-half-engine": {"build": {"fail": "half-engine"}},
    "build-hang": {"build": {"fail": "hang"}},
    "verify-gpu-oom": {"llmapi": {"fail": "gpu-oom"}},
    "verify-nccl": {"llmapi": {"fail": "nccl"}},
    "verify-empty": {"llmapi": {"emptyOutput": True}},
    "verify-hang": {"llmapi": {"fail": "hang"}},
    "serve-gpu-oom": {"serve": {"fail": "gpu-oom"}},
    "serve-nccl": {"serve": {"fail": "nccl"}},
    "serve-hang": {"serve": {"fail": "hang"}},
    "serve-health-lies": {"serve": {"healthLies": True}},
    "serve-crash": {"serve": {"crashAfterTokens": 10}},
    "serve-crash-linger": {"serve": {"crashAfterTokens": 10, "crash": "linger"}},
    "serve-slow-load": {"serve": {"loadSeconds": 20}},
    "serve-slow-tokens": {"serve": {"tokenDelay": 0.1}},
}

_SLOW: dict[str, Any] = {"build": {"secondsPerRank": 15}, "serve": {"loadSeconds": 3, "tokenDelay": 0.02}}
_HUGE = 50 * 10**12


def _blobs(contents: dict[str, bytes]) -> dict[str, Blob]:
    return {path: Blob.of(content) for path, content in contents.items()}


def _json(content: Any) -> Blob:
    return Blob.of((json.dumps(content, indent=2) + "\n").encode())


def repositories() -> dict[str, Repository]:
    """All repositories by name."""
    first, latest = _blobs(files.repository(1)), _blobs(files.repository(2))
    config = json.loads(latest["config.json"].content or b"{}")
    weights = latest["model.safetensors"]
    without_weights = {path: blob for path, blob in latest.items() if path != "model.safetensors"}
    foreign = {**config, "architectures": ["SomethingElseForCausalLM"]}
    found = [
        repository("demo/tiny-llama", {"First revision": first, "Second revision": latest}, tags={"v1": 0, "v2": 1}),
        repository("demo/gated-llama", {"First revision": latest}, gated="manual"),
        repository("demo/flaky-llama", {"First revision": latest}, flaky=True),
        repository("demo/slow-llama", {"First revision": {**latest, "simulator.json": _json(_SLOW)}}),
        repository("demo/huge-llama", {"First revision": {**without_weights, "model.safetensors": Blob(None, _HUGE)}}),
        repository("demo/pickle-llama", {"First revision": {**without_weights, "pytorch_model.bin": weights}}),
        repository("demo/other-architecture", {"First revision": {**latest, "config.json": _json(foreign)}}),
        repository(
            "demo/not-a-model", {"First revision": _blobs({"README.md": b"# Not a model\n", "notes.txt": b"Nothing to load here.\n"})}
        ),
    ]
    found += [
        repository(f"demo/broken-{name}", {"First revision": {**latest, "simulator.json": _json(faults)}})
        for name, faults in BROKEN.items()
    ]
    return {entry.name: entry for entry in found}
