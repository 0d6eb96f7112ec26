"""The demo's hub, used through the real huggingface_hub."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from images.simulator.testing import Server, hub

TOKEN, UNGRANTED = "hf_demo_token", "hf_demo_ungranted_token"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with hub() as running:
        yield running


@pytest.fixture
def api(server: Server, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return HfApi(endpoint=server.url, token=False)


def test_model_info(api: HfApi) -> None:
    info = api.model_info("demo/tiny-llama", files_metadata=True)
    assert info.sha
    assert len(info.sha) == 40
    assert info.gated is False
    files = {file.rfilename: file for file in info.siblings or ()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= set(files)
    weights = files["model.safetensors"]
    assert weights.lfs
    assert weights.size == weights.lfs.size
    assert (weights.size or 0) > 10**6
    assert all(file.size and file.blob_id for file in files.values())


def test_revisions(api: HfApi) -> None:
    """A branch, tags and commits; ids depend on contents alone, so that they are the same everywhere."""
    main, first = api.model_info("demo/tiny-llama"), api.model_info("demo/tiny-llama", revision="v1")
    assert main.sha != first.sha
    assert api.model_info("demo/tiny-llama", revision=first.sha).sha == first.sha
    assert api.model_info("demo/tiny-llama", revision="v2").sha == main.sha
    refs = api.list_repo_refs("demo/tiny-llama")
    assert [branch.target_commit for branch in refs.branches] == [main.sha]
    assert {tag.name for tag in refs.tags} == {"v1", "v2"}
    assert [commit.commit_id for commit in api.list_repo_commits("demo/tiny-llama")] == [main.sha, first.sha]


def test_snapshot(server: Server, api: HfApi, tmp_path: Path) -> None:
    commit = api.model_info("demo/tiny-llama", revision="v1").sha
    directory = Path(snapshot_download("demo/tiny-llama", revision=commit, local_dir=tmp_path / "model", endpoint=server.url, token=False))
    listed = {
        entry.path: entry.size for entry in api.list_repo_tree("demo/tiny-llama", revision=commit, recursive=True) if hasattr(entry, "size")
    }
    assert {path.name: path.stat().st_size for path in directory.iterdir() if path.is_file()} == listed
    assert json.loads((directory / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    cached = snapshot_download("demo/tiny-llama", cache_dir=tmp_path / "cache", allow_patterns=["*.json"], endpoint=server.url, token=False)
    assert "model.safetensors" not in {path.name for path in Path(cached).iterdir()}


def test_an_interrupted_download_is_resumed(server: Server, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client keeps whole pieces only, and the file is smaller than one of the usual size.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
    path = hf_hub_download("demo/flaky-llama", "model.safetensors", local_dir=tmp_path, endpoint=server.url, token=False)
    size = api.model_info("demo/flaky-llama", files_metadata=True).siblings
    assert Path(path).stat().st_size == next(file.size for file in size or () if file.rfilename == "model.safetensors")
    server.program.wait_for(r'GET /demo/flaky-llama/resolve/main/model\.safetensors HTTP/1\.1" 206')


@pytest.mark.parametrize(
    ("header", "status", "expected"),
    [
        ("bytes=10-19", 206, slice(10, 20)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=260-", 206, slice(260, None)),
        ("lines=1-2", 200, slice(None)),
    ],
)
def test_ranges(server: Server, header: str, status: int, expected: slice) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"{server.url}/demo/tiny-llama/resolve/main/README.md"
    with opener.open(url, timeout=10) as response:
        whole = response.read()
        etag = response.headers["ETag"]
    request = urllib.request.Request(url, headers={"Range": header})  # noqa: S310  the test's own server
    with opener.open(request, timeout=10) as response:
        assert response.status == status
        assert response.read() == whole[expected]
        assert response.headers["ETag"] == etag


def test_a_gated_model(server: Server, api: HfApi, tmp_path: Path) -> None:
    """Anybody may look at it; its files need a token that was granted access."""
    info = api.model_info("demo/gated-llama", files_metadata=True)
    assert info.gated == "manual"
    for token, status in ((False, 401), (UNGRANTED, 403)):
        with pytest.raises(GatedRepoError) as error:
            hf_hub_download("demo/gated-llama", "config.json", local_dir=tmp_path, endpoint=server.url, token=token)
        assert error.value.response.status_code == status
    path = hf_hub_download("demo/gated-llama", "config.json", local_dir=tmp_path, endpoint=server.url, token=TOKEN)
    assert json.loads(Path(path).read_text())["model_type"] == "llama"
    with pytest.raises(GatedRepoError):
        snapshot_download("demo/gated-llama", revision=info.sha, local_dir=tmp_path / "all", endpoint=server.url, token=False)


def test_what_does_not_exist(server: Server, api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("demo/nothing")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("demo/nothing", token=TOKEN)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("demo/tiny-llama", revision="nothing")
    with pytest.raises(RevisionNotFoundError):
        snapshot_download("demo/tiny-llama", revision="0" * 40, local_dir=tmp_path, endpoint=server.url, token=False)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("demo/tiny-llama", "nothing.json", local_dir=tmp_path, endpoint=server.url, token=False)


def test_tokens(api: HfApi) -> None:
    assert api.whoami(token=TOKEN)["name"] == "demo"
    with pytest.raises(HfHubHTTPError, match="401"):
        api.model_info("demo/tiny-llama", token="hf_unknown")


def test_faulty_repositories(server: Server, api: HfApi, tmp_path: Path) -> None:
    huge = api.model_info("demo/huge-llama", files_metadata=True)
    assert sum(file.size or 0 for file in huge.siblings or ()) > 49 * 10**12
    assert "config.json" not in {file.rfilename for file in api.model_info("demo/not-a-model").siblings or ()}
    names = [model.id for model in api.list_models()]
    assert [name for name in names if name.startswith("demo/broken-")]
    path = hf_hub_download("demo/broken-build-gpu-oom", "simulator.json", local_dir=tmp_path, endpoint=server.url, token=False)
    assert json.loads(Path(path).read_text()) == {"build": {"fail": "gpu-oom"}}


def test_every_fault_is_one_that_the_simulator_knows() -> None:
    from model_hub import catalog  # noqa: PLC0415  found through images.simulator.testing
    from trtllm_simulator import faults  # noqa: PLC0415

    for content in catalog.BROKEN.values():
        assert faults.parse(content) != faults.Faults()


def test_health(server: Server) -> None:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{server.url}/healthz", timeout=10) as response:
        assert response.read() == b"ok"
