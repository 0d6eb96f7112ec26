"""Container images as files, without a builder: one layer, written in the format of `docker save`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def architecture() -> str:
    """Name of this machine's architecture in images."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


class Layer:
    """A tar in the making; owners are root and times are zero, so that equal content gives equal bytes."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)
        self._names: set[str] = set()

    def _add(self, info: tarfile.TarInfo, data: bytes | None = None) -> None:
        if info.name in self._names:
            return
        self._names.add(info.name)
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        self._tar.addfile(info, None if data is None else io.BytesIO(data))

    def file(self, source: Path, name: str, mode: int = 0o755) -> None:
        """Add the content of `source` as `name`."""
        data = source.read_bytes()
        info = tarfile.TarInfo(name.lstrip("/"))
        info.size, info.mode = len(data), mode
        self._add(info, data)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link `name` that points to `target`."""
        info = tarfile.TarInfo(name.lstrip("/"))
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
        self._add(info)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory."""
        info = tarfile.TarInfo(name.strip("/"))
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._add(info)

    def copy(self, root: Path, name: str) -> None:
        """Add what lies at `root`/`name`, whichever of the three it is."""
        source = root / name.lstrip("/")
        if source.is_symlink():
            self.link(name, str(source.readlink()))
        elif source.is_dir():
            self.directory(name, source.stat().st_mode & 0o7777)
        elif source.is_file():
            self.file(source, name, source.stat().st_mode & 0o7777)

    def content(self) -> bytes:
        """The finished tar."""
        self._tar.close()
        return self._buffer.getvalue()


def write(target: Path, tag: str, layer: Layer, entrypoint: Sequence[str] = ()) -> None:
    """Write the image `tag` of one layer to the file `target`."""
    data = layer.content()
    settings = {"Env": [_PATH], "WorkingDir": "/", **({"Entrypoint": list(entrypoint)} if entrypoint else {})}
    config = json.dumps(
        {
            "architecture": architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests.cluster"}],
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as tar:
        for path, content in ((name, config), ("layer.tar", data), ("manifest.json", manifest)):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
