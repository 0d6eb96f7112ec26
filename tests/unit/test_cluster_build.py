"""Pure parts of building: contexts, base images, names, package closures, capabilities."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster import binaries, buildbase, buildcontext, gobuild, kind, nodeimages, rootfs, runc_front, source, versions
from tests.cluster.archive import Layer


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("a/b.pyc", ["**/*.pyc"], True),
        ("b.pyc", ["**/*.pyc"], True),
        ("a/b.py", ["**/*.pyc"], False),
        ("docs/a/b", ["docs"], True),
        ("a/docs", ["docs"], False),
        ("a/x/b", ["a/*/b"], True),
        ("a/x/y/b", ["a/*/b"], False),
        ("keep/me", ["*", "!keep"], False),
        ("other/me", ["*", "!keep"], True),
    ],
)
def test_ignore_patterns(name: str, patterns: list[str], expected: bool) -> None:
    assert buildcontext.ignored(name, patterns) is expected


def test_collect_leaves_out_what_is_ignored_and_caches(tmp_path: Path) -> None:
    for name in ("src/a.py", "src/__pycache__/a.pyc", "notes/x", ".git/config", "pyproject.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".dockerignore").write_text("# not needed\nnotes\n")
    assert list(buildcontext.collect(tmp_path)) == [".dockerignore", "pyproject.toml", "src/a.py"]
    assert list(buildcontext.collect(tmp_path, ["src", "pyproject.toml"])) == ["pyproject.toml", "src/a.py"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        buildcontext.collect(tmp_path, ["nowhere"])


def test_equal_content_packs_to_equal_bytes(tmp_path: Path) -> None:
    packed = []
    for name in ("one", "other"):
        context = tmp_path / name
        context.mkdir()
        (context / "Dockerfile").write_text("FROM scratch\n")
        packed.append(buildcontext.pack(buildcontext.collect(context), context / "Dockerfile"))
    assert packed[0] == packed[1]


def test_a_machine_with_nothing_special_needs_no_build_base() -> None:
    assert buildbase.settings({}, {}) == ({}, None)


def test_index_and_bundle_of_the_machine_are_taken_over(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.touch()
    variables, found = buildbase.settings(
        {"PIP_INDEX_URL": "https://index.example/simple", "SSL_CERT_FILE": str(bundle)},
        {"index-url": "https://weaker.example/simple", "trusted-host": "index.example"},
    )
    assert found == bundle
    assert variables["PIP_INDEX_URL"] == "https://index.example/simple"
    assert variables["PIP_TRUSTED_HOST"] == "index.example"
    assert variables["PIP_CERT"] != str(bundle), "the path inside the image, not that of the machine"


def test_a_bundle_that_is_not_there_is_not_named(tmp_path: Path) -> None:
    assert buildbase.settings({"PIP_CERT": str(tmp_path / "none")}, {}) == ({}, None)


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("test/app:1", "docker.io/test/app:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("registry.example/a/b:2", "registry.example/a/b:2"),
    ],
)
def test_names_as_containerd_has_them(image: str, full: str) -> None:
    assert kind._full_name(image) == full


def test_closure_follows_dependencies_and_their_alternatives() -> None:
    status = (
        "Package: iptables\nDepends: libc6 (>= 2.36), libxtables12 (= 1.8)\n\n"
        "Package: libc6\nPre-Depends: libgcc-s1\n\n"
        "Package: libgcc-s1\n\nPackage: libxtables12\nDepends: libc6 | other\n\nPackage: unrelated\n"
    )
    assert nodeimages.closure(status, ("iptables",)) == {"iptables", "libc6", "libgcc-s1", "libxtables12"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n", ["http://mirror.example/debian"]),
        ("deb [signed-by=/k] http://m.example/debian bookworm main\n", ["http://m.example/debian"]),
        ("deb http://m.example/debian-security bookworm-security main\n", []),
        ("", []),
    ],
)
def test_mirror_of_the_machine(text: str, expected: list[str]) -> None:
    assert rootfs.mirror(text) == expected


def test_capabilities_that_a_machine_lacks() -> None:
    assert runc_front.missing_capabilities("Name:\tx\nCapBnd:\t000001fffeffffff\n") == {"CAP_SYS_RESOURCE"}
    assert runc_front.missing_capabilities("CapBnd:\t000001ffffffffff\n") == set()


def test_front_takes_them_out_of_the_bundle(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"process": {"args": ["x"], "capabilities": {"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"]}}}))
    runc_front._edit(config, {"CAP_SYS_RESOURCE"}, "process")
    assert json.loads(config.read_text()) == {"process": {"args": ["x"], "capabilities": {"bounding": ["CAP_KILL"]}}}


@pytest.mark.parametrize(("text", "expected"), [("go version go1.26.8 linux/amd64", (1, 26)), ("nonsense", None)])
def test_version_of_go(text: str, expected: tuple[int, int] | None) -> None:
    assert gobuild.version_of(text) == expected


def test_every_module_set_is_pinned_to_the_versions_that_are_named() -> None:
    for module_set, module, version in (
        ("kubernetes", "k8s.io/kubernetes", versions.KUBERNETES),
        ("etcd", "go.etcd.io/etcd/server/v3", versions.ETCD),
        ("coredns", "github.com/coredns/coredns", versions.COREDNS),
        ("local-path", "github.com/rancher/local-path-provisioner", versions.LOCAL_PATH),
        ("kind", "sigs.k8s.io/kind", versions.KIND),
    ):
        assert f"{module} {version}" in (gobuild.MODULE_SETS / module_set / "go.mod").read_text()


def test_programs_have_different_keys_and_unknown_ones_are_refused() -> None:
    names = (*binaries.CONTROL_PLANE, *binaries.NODE)
    assert len({binaries.digest(name) for name in names}) == len(names)
    with pytest.raises(ValueError, match="no such program: kubectk"):
        binaries.ensure("kubectk")


def test_a_wrong_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(source.VARIABLE, "magic")
    source.chosen.cache_clear()
    with pytest.raises(ValueError, match="give registry or packages"):
        source.chosen()


def test_a_layer_does_not_depend_on_time_or_owner(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"x")
    contents = []
    for _ in range(2):
        program.touch()
        layer = Layer()
        layer.file(program, "/usr/bin/program")
        contents.append(layer.content())
    assert contents[0] == contents[1]
