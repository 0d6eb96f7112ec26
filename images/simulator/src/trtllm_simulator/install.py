"""Puts the simulator where the real tools are: distribution metadata, commands, converter, nvidia-smi. Run once, when an image is built.

`python -m trtllm_simulator.install --version 1.2.1 --site SITE_PACKAGES --bin BIN --app /app/tensorrt_llm`
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from trtllm_simulator import versions

_STUB = """#!{python}
# TensorRT-LLM {version} SIMULATOR
import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
from {module} import main

if __name__ == "__main__":
    sys.exit(main())
"""

_METADATA = """Metadata-Version: 2.1
Name: tensorrt_llm
Version: {version}
Summary: SIMULATOR of TensorRT-LLM {version}: computes on the CPU, no NVIDIA software involved
"""


def install(version: str, *, site: Path, commands: Path, app: Path) -> None:
    """Installs the version.

    Raises:
        ValueError: the simulator doesn't know it.
    """
    behaviour = versions.of(version)
    sources = Path(__file__).resolve().parent.parent
    for package in ("trtllm_simulator", "tensorrt_llm"):
        if (site / package).resolve() != (sources / package).resolve():
            shutil.copytree(
                sources / package, site / package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "install.py")
            )
    info = site / f"tensorrt_llm-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(_METADATA.format(version=version))
    (info / "INSTALLER").write_text("simulator\n")
    (app / "examples").mkdir(parents=True, exist_ok=True)
    programs = {commands / "trtllm-serve": "trtllm_simulator.serve", commands / "nvidia-smi": "trtllm_simulator.nvidia_smi"}
    if behaviour.tensorrt:
        programs[commands / "trtllm-build"] = "trtllm_simulator.build"
        programs[app / "examples/models/core/llama/convert_checkpoint.py"] = "trtllm_simulator.convert"
    else:
        shutil.rmtree(site / "tensorrt_llm" / "_tensorrt_engine")
    for path, module in programs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_STUB.format(python=sys.executable, version=version, module=module))
        path.chmod(0o755)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True, choices=versions.KNOWN)
    parser.add_argument("--site", required=True, type=Path, help="site-packages directory")
    parser.add_argument("--bin", required=True, type=Path, help="directory on PATH")
    parser.add_argument("--app", required=True, type=Path, help="TensorRT-LLM's source directory in NVIDIA's image")
    arguments = parser.parse_args(argv)
    install(arguments.version, site=arguments.site, commands=arguments.bin, app=arguments.app)
    return 0


if __name__ == "__main__":
    sys.exit(main())
