"""Hostile text from a spec to the argv of a program, through all that is between: the Job that the operator renders, Kubernetes' expansion
of `$(VAR)`, the stage program as a process, and the kernel. In the place of TensorRT-LLM's programs stands one that records its argv as the
kernel has it (/proc/self/cmdline), so nothing of the way is imitated but the kubelet.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.flow import engine_object
from tests.unit.test_builder_support import CSV, FakeHub, Repo, executable, install_distribution, model_files, program, write_tree
from tests.unit.test_injection import CANARY, SECRETS
from tests.unit.test_injection_rendering import argv, containers, environment, render
from tests.unit.test_injection_reports import HOSTILE
from tests.unit.test_injection_schema import refusals
from tests.unit.test_service_world import service_object
from trtllm_operator.builder import files, llmapi_smoke, manifest
from trtllm_operator.builder.files import Hashed
from trtllm_operator.builder.manifest import Manifest
from trtllm_operator.desired import commands, names

Json = dict[str, Any]

MORE = [
    "${HF_TOKEN}", "$(HOME)", "$$(HOME)", "$$$(HOME)", "$(HOME", "$", "$$", "$$$$", "$()", "$(HF_TOKEN)$(HOME)", "a=b", "=", "--", "-c",
    "--flag=value", "@/etc/passwd", "*", "?", "[a-z]*", "~", "~root", "!!", "&& id", "| id", "> /tmp/x", "$(id)", "\\", "\\n", "'", '"', "'\"'",
    "\t", "\n", "\r", "\x01\x7f", "\x1b[2J", "\u2028\u0085\ufeff", "é e\u0301", "\U0001f600", "{}", '{"a": 1}', "%s%n", "#", ";",
]  # fmt: skip
TEXTS = [text for text in dict.fromkeys([*HOSTILE, *MORE]) if text and "\0" not in text]
SHORT = [text for text in TEXTS if len(text) <= 256]

# The shape of environments in which a pod may run: without any locale, as in most images, and with others.
LOCALES: list[dict[str, str]] = [{}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LANG": "C.UTF-8"}]

_RECORD = """
import os, sys
data = open("/proc/self/cmdline", "rb").read()
words = data.split(b"\\0")[:-1]
own = next(i for i, word in enumerate(words) if word == os.fsencode(sys.argv[0]))
with open(os.environ["RECORD"], "ab") as out:
    out.write(os.path.basename(words[own]) + b"\\0" + b"\\0".join(words[own + 1:]) + b"\\0\\0\\n")
"""
_EFFECT = """
import json, pathlib
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(arguments["--output_dir"])
out.mkdir(parents=True)
"""
_CONVERT = _RECORD + _EFFECT + '(out / "config.json").write_text("{}")\n(out / "rank0.safetensors").write_bytes(b"x")\n'
_BUILD = (
    _RECORD
    + _EFFECT
    + '(out / "rank0.engine").write_bytes(b"x")\n'
    + '(out / "config.json").write_text(json.dumps({"version": "1.2.1", "pretrained_config": {"mapping": {"world_size": 1}}}))\n'
)
_SMOKE = _RECORD + f'print(\'\\n{llmapi_smoke.MARKER}\' + \'{{"text": "x", "tokens": 1}}\')\n'


class Node:
    """What a kubelet and an image are to a pod: runs the main container of a rendered object. Paths of volumes are below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "record"
        for name in ("scratch", "bin", "app"):
            (root / name).mkdir()
        executable(root / "bin/nvidia-smi", f"print({CSV!r}, end='')")
        executable(root / "bin/trtllm-build", _BUILD)
        executable(root / "bin/trtllm-serve", _RECORD)
        # As in the image: the converter and the smoke test are scripts that python3 runs.
        executable(root / "bin/python3", "import os, sys\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])")
        install_distribution(root / "site", "1.2.1")
        write_tree(root, {"tools/llmapi_smoke.py": _SMOKE.encode(), "app/convert_checkpoint.py": _CONVERT.encode()})
        shutil.copy(program(), root / "tools/stage.pyz")
        write_tree(root, {"opt/trtllm-operator/stage.pyz": program().read_bytes()})

    def place(self, text: str) -> str:
        """A path in a pod as it is here; any other text as it is. Also within a request."""
        for path in (names.CHECKPOINTS, names.ENGINES, names.SOURCE, names.TOOLS, names.SCRATCH, names.MODELS, names.TOKENIZER, "/opt"):
            if text.startswith(f"{path}/") or text == path:
                return f"{self.root}{text}"
            text = text.replace(f'"{path}/', f'"{self.root}{path}/')
        start = text.find('"/app/')
        if start >= 0:
            end = text.index('"', start + 1)
            text = f"{text[: start + 1]}{self.root}/app/convert_checkpoint.py{text[end:]}"
        return text

    def run(self, obj: Json, locale: dict[str, str], **more: str) -> subprocess.CompletedProcess[bytes]:
        """The container, started as a kubelet starts it."""
        container = obj["spec"]["template"]["spec"]["containers"][0]
        words = [self.place(word) for word in argv(container, SECRETS)]
        given = {name: self.place(value) for name, value in environment(container, SECRETS).items()}
        env = {
            **given, **locale, "PATH": f"{self.root / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(self.root / "site"), "RECORD": str(self.record),
            "TERMINATION_LOG": str(self.root / "report"), "NO_PROXY": "127.0.0.1", **more,
        }  # fmt: skip
        first = shutil.which(words[0], path=env["PATH"])
        assert first is not None
        command = [os.fsencode(word) if word.isascii() else word.encode() for word in [first, *words[1:]]]
        return subprocess.run(command, env=env, cwd=self.root / "scratch", capture_output=True, timeout=120, check=False)

    def report(self) -> Json:
        """The termination message."""
        found: Json = json.loads((self.root / "report").read_bytes())
        return found

    def recorded(self) -> list[list[bytes]]:
        """Words of each program that ran, in order, by its name; then forgotten."""
        data = self.record.read_bytes()
        self.record.unlink()
        return [line.split(b"\0") for line in data.split(b"\0\0\n")[:-1]]


def stage(made: list[Json], name: str) -> Json:
    """The Job of a stage."""
    [job] = [obj for obj in made if obj["kind"] == "Job" and obj["metadata"]["labels"][names.STAGE] == name]
    return job


def checkpoint(node: Node, made: list[Json]) -> None:
    """What fetch would have left."""
    asked = json.loads(argv(stage(made, "build")["spec"]["template"]["spec"]["containers"][0], SECRETS)[-1])
    write_tree(Path(node.place(asked["checkpoint"])), model_files())


def artifact(node: Node, made: list[Json]) -> None:
    """What publish would have left, so that verify has something to compare; the digest in the Job is replaced by its digest."""
    job = stage(made, "verify")
    container = job["spec"]["template"]["spec"]["containers"][0]
    asked = json.loads(argv(container, SECRETS)[-1])
    directory = Path(node.place(asked["directory"]))
    write_tree(directory, {"artifact/engine/rank0.engine": b"x"})
    hashed = files.hash_all(directory, [files.Entry("artifact/engine/rank0.engine", 1)], lambda _: None)
    digest = manifest.write(Path(node.place(asked["manifest"])), Manifest("TensorRTEngine", "r", (Hashed(*_fields(hashed[0])),), "k"))
    container["command"][-1] = container["command"][-1].replace(asked["digest"], digest)


def _fields(file: Hashed) -> tuple[str, int, str]:
    return file.path, file.size, file.sha256


def flags(texts: list[str]) -> list[Json]:
    """Entries of extraArgs with these values."""
    return [{"flag": f"--x_{'abcdefghijklmnopqrstuvwxyz'[i % 26]}{i}", "value": text} for i, text in enumerate(texts)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


CHUNKS = [SHORT[i : i + 32] for i in range(0, len(SHORT), 32)]


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: "-".join(locale.values()) or "none")
@pytest.mark.parametrize("chunk", range(len(CHUNKS)))
def test_values_reach_trtllm_build_byte_by_byte(node: Node, chunk: int, locale: dict[str, str]) -> None:
    given = flags(CHUNKS[chunk])
    engine = engine_object(build={"extraArgs": given}, accelerator={"computeCapability": "9.0"})
    assert refusals(engine) == []
    made = render(engine)
    checkpoint(node, made)
    ended = node.run(stage(made, "build"), locale)
    assert ended.returncode == 0, ended.stdout.decode(errors="replace") + ended.stderr.decode(errors="replace")
    assert node.report()["ok"]
    convert, build = node.recorded()
    assert [convert[0], build[0]] == [b"convert_checkpoint.py", b"trtllm-build"]
    assert build[-len(given) :] == [f"{arg['flag']}={arg['value']}".encode() for arg in given]
    harmless = [word.decode() for word in build[1 : -len(given)]]
    assert harmless[0::2] == [word for word in harmless if word.startswith("--")], "flags and values take turns, up to the given ones"
    assert CANARY.encode() not in b"".join(convert + build) + ended.stdout + ended.stderr


@pytest.mark.parametrize("text", [text for text in TEXTS if len(text) <= 1024], ids=lambda text: ascii(text)[:20])
def test_a_prompt_reaches_the_smoke_test_byte_by_byte(node: Node, text: str) -> None:
    locale = LOCALES[len(text) % len(LOCALES)]
    engine = engine_object(verify={"prompt": text}, accelerator={"computeCapability": "9.0"})
    assert refusals(engine) == []
    made = render(engine)
    artifact(node, made)
    ended = node.run(stage(made, "verify"), locale)
    assert ended.returncode == 0, ended.stdout.decode(errors="replace")
    [smoke] = node.recorded()
    assert smoke[0] == b"llmapi_smoke.py"
    assert smoke[-1] == f"--prompt={text}".encode()
    assert [word for word in smoke if word.startswith(b"--prompt")] == [smoke[-1]]


@pytest.mark.parametrize(("version", "name"), [("1.2.1", "a.b-c_D"), ("1.3.0rc29", "owner/a.b-c_D")])
def test_a_server_gets_its_argv_and_its_options(node: Node, version: str, name: str) -> None:
    options: Json = {f"x{i}": text[:512] for i, text in enumerate(TEXTS)}
    options |= {text[:64]: 1 for text in ("$(HF_TOKEN)", "`id`", "a\nb", "-x")}
    service = service_object(serve={"options": options, "servedModelName": name, "reasoningParser": "deepseek-r1"})
    assert refusals(service) == []
    engine = engine_object(runtime={"version": version}, accelerator={"computeCapability": "9.0"})
    made = render(engine, service)
    [deployment] = [obj for obj in made if obj["kind"] == "Deployment"]
    ended = node.run(deployment, {})
    assert ended.returncode == 0, ended.stderr
    [serve] = node.recorded()
    assert serve[0] == b"trtllm-serve"
    assert serve[1] == node.place(f"{names.MODELS}/{name.rsplit('/', 1)[-1]}").encode()
    assert serve[serve.index(b"--reasoning_parser") + 1] == b"deepseek-r1"
    if version != "1.2.1":
        assert name.encode() in serve
    [config] = [obj for obj in made if obj["kind"] == "ConfigMap"]
    assert yaml.safe_load(config["data"][commands.OPTIONS_FILE]) == options


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        yield running


PATTERNS = [text for text in [*SHORT, "nul\0byte"] if not {"*", "?"} & set(text)]


@pytest.mark.parametrize("start", range(0, len(PATTERNS), 30))
def test_patterns_are_only_patterns(node: Node, hub: FakeHub, start: int) -> None:
    """They choose files by name, in the process that talks to the hub with the token; nothing else becomes of them."""
    texts = PATTERNS[start : start + 30]
    hub.repos["a/b"] = Repo(model_files())
    source = {"repo": "a/b", "endpoint": hub.endpoint, "tokenSecretRef": {"name": "hub"}, "ignorePatterns": [*texts, "README.md"]}
    engine = engine_object(source={"huggingFace": source}, accelerator={"computeCapability": "9.0"})
    assert refusals(engine) == []
    ended = node.run(stage(render(engine), "resolve"), LOCALES[start // 30 % len(LOCALES)])
    said = node.report()
    assert CANARY.encode() not in ended.stdout + ended.stderr + json.dumps(said).encode()
    assert said["ok"], said
    assert said["facts"]["files"] == len(model_files()) - 1
    assert not node.record.exists(), "no program was started"


def test_repositories_and_revisions_reach_the_hub_as_they_are(node: Node, hub: FakeHub) -> None:
    hub.repos["Own-er_1/na.me_-2"] = Repo(model_files(), revisions={"refs/pr/1": "c" * 40})
    source = {"repo": "Own-er_1/na.me_-2", "revision": "refs/pr/1", "endpoint": hub.endpoint}
    job = stage(render(engine_object(source={"huggingFace": source}, accelerator={"computeCapability": "9.0"})), "resolve")
    node.run(job, {})
    assert hub.requests[0][1].startswith("/api/models/Own-er_1/na.me_-2/revision/refs/pr/1")


def test_the_recorder_records(node: Node) -> None:
    """What is run by hand is found again, whatever it is."""
    words = ["a", "", "é", "\n", "$(X)"]
    subprocess.run([node.root / "bin/trtllm-serve", *words], env={"RECORD": str(node.record), "PATH": "/usr/bin:/bin"}, check=True)
    assert node.recorded() == [[b"trtllm-serve", *(word.encode() for word in words)]]


def test_no_command_of_ours_is_a_shell() -> None:
    made = render(engine_object(accelerator={"computeCapability": "9.0"}), service_object(serve={"options": {"x": 1}}))
    for obj in made:
        if obj["kind"] in ("Job", "Deployment"):
            for container in containers(obj["spec"]["template"]):
                assert not {"sh", "bash", "-c", "/bin/sh"} & set(argv(container, SECRETS))
                assert "args" not in container
