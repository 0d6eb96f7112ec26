"""The image that build stages start from: the base plus what this machine needs to reach its package index.

A machine may have an index, a proxy or a certificate authority of its own. That is put into a local image, which a
Dockerfile takes by `ARG BUILD_BASE=${BASE}` in its build stage only: neither the Dockerfile nor the final image, which
starts from `BASE`, holds any of it.
"""

from __future__ import annotations

import configparser
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import buildcontext, cache
from tests.cluster.dockerd import Docker
from tests.cluster.progress import step

_REPOSITORY = "trtllm-operator/build-base"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

_BUNDLE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "timeout")
_VARIABLES = ("PIP_DEFAULT_TIMEOUT", "UV_INDEX_URL", "UV_DEFAULT_INDEX")


def _pip_files() -> list[Path]:
    """Where pip reads its configuration, the weakest first."""
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    own = [Path(os.environ["PIP_CONFIG_FILE"])] if os.environ.get("PIP_CONFIG_FILE") else []
    return [Path("/etc/pip.conf"), home / ".pip/pip.conf", config / "pip/pip.conf", Path(sys.prefix) / "pip.conf", *own]


def _pip_configuration() -> dict[str, str]:
    parser = configparser.RawConfigParser()
    for path in _pip_files():
        if path.is_file():
            parser.read(path)
    return dict(parser["global"]) if parser.has_section("global") else {}


def settings(environment: Mapping[str, str], configuration: Mapping[str, str]) -> tuple[dict[str, str], Path | None]:
    """Variables for the build stage, and the machine's bundle of certificate authorities if it names one.

    Args:
        environment: variables of this machine; they win over `configuration`.
        configuration: pip's, section `global`.
    """
    variables = {f"PIP_{name.upper().replace('-', '_')}": configuration[name] for name in _SETTINGS if name in configuration}
    for name in (*variables, *(f"PIP_{name.upper().replace('-', '_')}" for name in _SETTINGS), *_VARIABLES):
        if environment.get(name):
            variables[name] = environment[name]
    named = [*(environment.get(name) for name in _BUNDLE_VARIABLES), configuration.get("cert")]
    bundle = next((Path(name) for name in named if name and Path(name).is_file()), None)
    if bundle is not None:
        variables |= dict.fromkeys(_BUNDLE_VARIABLES, _BUNDLE)
    return variables, bundle


def ensure(docker: Docker, base: str) -> str:
    """The tag of the build base; `base` itself on a machine that needs nothing special."""
    variables, bundle = settings(os.environ, _pip_configuration())
    if not variables:
        return base
    tag = f"{_REPOSITORY}:{cache.key({'base': base, 'variables': variables, 'bundle': bundle})}"
    if docker("image", "ls", "--quiet", tag).strip():
        return tag
    lines = [f"FROM {base}", *(f"ENV {name}={json.dumps(value)}" for name, value in variables.items())]
    if bundle is not None:
        lines.append(f"COPY bundle {_BUNDLE}")
    with step("making the base of build stages"), tempfile.TemporaryDirectory() as directory:
        dockerfile = Path(directory) / "Dockerfile"
        dockerfile.write_text("\n".join(lines) + "\n")
        files = {} if bundle is None else {"bundle": bundle}
        docker("build", "--quiet", f"--tag={tag}", f"--file={buildcontext.DOCKERFILE}", "-", stdin=buildcontext.pack(files, dockerfile))
    return tag
