"""The doctor names what is missing and what to do, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cluster import doctor
from tests.cluster.doctor import Facts
from tests.cluster.process import ClusterError

GIB = 1024**3

BARE_DEBIAN = Facts(
    platform="linux",
    root=True,
    source="packages",
    docker=False,
    free=50 * GIB,
    memory=20 * GIB,
    go=True,
    wheel=True,
    debian=True,
    missing=("debootstrap", "docker.io"),
    cgroup=True,
    programs=(),
    built=False,
    control_plane_built=False,
)
LAPTOP = replace(
    BARE_DEBIAN, platform="darwin", root=False, source="registry", docker=True, debian=False, missing=(), go=False, cgroup=False
)


def problems(facts: Facts) -> list[str]:
    return [str(finding) for finding in doctor.cluster(facts) if not finding.ok]


def test_nothing_is_needed_to_build_what_is_built() -> None:
    built = replace(BARE_DEBIAN, built=True, control_plane_built=True, go=False, wheel=False, free=5 * GIB, missing=())
    assert problems(built) == []
    assert all(finding.ok for finding in doctor.control_plane(built))


def test_the_bare_control_plane_needs_go_and_no_root() -> None:
    assert all(finding.ok for finding in doctor.control_plane(replace(BARE_DEBIAN, root=False, cgroup=False)))
    lacking = replace(BARE_DEBIAN, go=False, wheel=False, programs=("openssl",))
    assert [finding.ok for finding in doctor.control_plane(lacking)] == [False, False, True]


@pytest.mark.parametrize("facts", [BARE_DEBIAN, LAPTOP, replace(BARE_DEBIAN, go=False), replace(BARE_DEBIAN, wheel=False)])
def test_machines_that_have_all(facts: Facts) -> None:
    assert problems(facts) == []


@pytest.mark.parametrize(
    ("facts", "what", "remedy"),
    [
        (replace(BARE_DEBIAN, root=False), "root", "run it as root"),
        (replace(BARE_DEBIAN, go=False, wheel=False), "Go 1.24", "go.dev/dl"),
        (replace(BARE_DEBIAN, free=2 * GIB), "14 GiB of free disk", "TRTLLM_CACHE"),
        (replace(BARE_DEBIAN, memory=GIB), "3 GiB of available memory", "larger machine"),
        (replace(BARE_DEBIAN, debian=False), "apt-get", "install by hand: debootstrap, docker.io"),
        (replace(BARE_DEBIAN, cgroup=False), "cgroup", "mount"),
        (replace(BARE_DEBIAN, programs=("unshare",)), "unshare", "install: unshare"),
        (replace(BARE_DEBIAN, platform="darwin", docker=True), "Linux", "registry"),
        (replace(LAPTOP, docker=False), "Docker daemon", "Docker Desktop"),
        (replace(LAPTOP, docker=False, platform="linux"), "Docker daemon", "systemctl start docker"),
    ],
)
def test_one_need_that_is_not_met(facts: Facts, what: str, remedy: str) -> None:
    found = "\n".join(problems(facts))
    assert what in found
    assert remedy in found


def test_packages_that_will_be_installed_are_named_beforehand() -> None:
    assert any("debootstrap, docker.io will be installed" in str(finding) for finding in doctor.cluster(BARE_DEBIAN))


def test_require_names_every_problem_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gather", lambda: replace(BARE_DEBIAN, root=False, cgroup=False))
    with pytest.raises(ClusterError, match=r"(?s)nothing was changed.*root.*cgroup"):
        doctor.require(doctor.cluster)
