"""Where foreign parts come from: container images of a registry, or packages that we build from."""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache as once
from typing import Literal

from tests.cluster import versions
from tests.cluster.process import succeeds

Source = Literal["registry", "packages"]

VARIABLE = "TRTLLM_CLUSTER_SOURCE"
_ANSWER_SECONDS = 8.0


@once
def chosen() -> Source:
    """What `$TRTLLM_CLUSTER_SOURCE` says; else `registry` where one answers, `packages` where none does.

    Only Linux can build from packages.

    Raises:
        ValueError: the variable holds something else.
    """
    given = os.environ.get(VARIABLE)
    if given in ("registry", "packages"):
        return "registry" if given == "registry" else "packages"
    if given:
        raise ValueError(f"{VARIABLE}={given}: give registry or packages")
    if sys.platform != "linux":
        return "registry"
    return "registry" if _registry_answers() else "packages"


def _registry_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    # The client asks the registry itself, so this works before any daemon runs.
    return succeeds(["docker", "manifest", "inspect", versions.PYTHON_IMAGE], timeout=_ANSWER_SECONDS)
