"""The zipapp stands alone: it runs without this repository, with nothing but an interpreter."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.unit.test_builder_support import CSV, executable, install_distribution, program
from trtllm_operator import builder
from trtllm_operator.builder import pack

SOURCES = sorted(Path(builder.__file__).parent.glob("*.py"))


def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    # -I: neither this checkout nor PYTHONPATH can help. -S would take away site-packages, which tensorrt_llm's metadata needs.
    return subprocess.run([sys.executable, "-I", *argv], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **env})


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    target = tmp_path / "stage.pyz"
    ended = subprocess.run(
        [sys.executable, "-m", "trtllm_operator.builder.pack", str(target)],
        env={**os.environ, "PYTHONPATH": str(Path(builder.__file__).parents[2])},
    )
    assert ended.returncode == 0
    assert target.read_bytes() == pack.build()
    assert target.stat().st_mode & 0o111


def test_packed_from_the_builder_directory_alone(tmp_path: Path) -> None:
    package = tmp_path / "src/trtllm_operator"
    package.mkdir(parents=True)
    (package / "builder").symlink_to(Path(builder.__file__).parent)
    env = {"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run([sys.executable, "-S", "-m", "trtllm_operator.builder.pack", str(tmp_path / "x.pyz")], env=env)
    assert ended.returncode == 0
    assert (tmp_path / "x.pyz").read_bytes() == pack.build()


def test_install(tmp_path: Path) -> None:
    target = tmp_path / "tools"
    first = run(str(program()), "install", str(target))
    assert first.returncode == 0, first.stderr
    assert (target / "stage.pyz").read_bytes() == program().read_bytes()
    assert (target / "llmapi_smoke.py").read_bytes() == (Path(builder.__file__).parent / "llmapi_smoke.py").read_bytes()
    assert {path.name for path in target.iterdir()} == {"stage.pyz", "llmapi_smoke.py"}
    assert all(path.stat().st_mode & 0o555 == 0o555 for path in target.iterdir())
    again = run(str(target / "stage.pyz"), "install", str(tmp_path / "other"))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "other/stage.pyz").read_bytes() == program().read_bytes()


def test_only_the_standard_library() -> None:
    allowed = set(sys.stdlib_module_names) | {"trtllm_operator"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 10))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                if name.split(".")[0] == "trtllm_operator":
                    assert name.startswith("trtllm_operator.builder"), f"{path.name} imports {name}"
                elif name.split(".")[0] == "huggingface_hub":
                    assert path.name == "hub.py", f"{path.name} imports {name}"
                else:
                    assert name.split(".")[0] in allowed, f"{path.name} imports {name}"


def test_no_shell() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert "shell=True" not in text, path.name
        assert "os.system" not in text, path.name


def test_preflight_prints_what_is_there(tmp_path: Path) -> None:
    executable(tmp_path / "nvidia-smi", f"print({CSV!r}, end='')")
    install_distribution(tmp_path / "site", "1.2.1")
    env = {"PATH": str(tmp_path), "PYTHONPATH": str(tmp_path / "site")}
    ended = subprocess.run([sys.executable, str(program()), "preflight"], capture_output=True, text=True, env=env)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["source"] == "nvidia-smi"
    assert said["runtimeVersion"] == "1.2.1"
    assert said["gpus"] == [
        {
            "index": 0,
            "uuid": "GPU-1",
            "name": "NVIDIA H100 80GB HBM3",
            "computeCapability": "9.0",
            "memoryMiB": 81559,
            "driver": "570.86.15",
            "mig": "Disabled",
            "memoryFreeMiB": 81000,
        }
    ]


def test_preflight_without_a_gpu(tmp_path: Path) -> None:
    executable(tmp_path / "nvidia-smi", "import sys\nprint('No devices were found')\nsys.exit(6)")
    ended = run(str(program()), "preflight", PATH=str(tmp_path))
    said = json.loads(ended.stdout)
    if said["source"] == "nvml":  # this machine has a GPU
        assert ended.returncode == 0
        return
    assert ended.returncode == 1
    assert said["gpus"] == []
    assert "No devices were found" in said["problems"][0]
