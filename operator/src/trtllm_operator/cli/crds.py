"""`trtllm-operator crds`: write the resource definitions, or check that the written ones are those of the types."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from trtllm_operator.api.crdgen.definition import DEFINITIONS, Definition

_HEAD = "# Generated from the types by `trtllm-operator crds`; change the types, not this file.\n"
_WIDTH = 140


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.add_argument("--output", type=Path, default=Path("crds"), metavar="DIR", help="directory of the files (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not what would be written")


def main(args: argparse.Namespace) -> int:
    """Write or check. 0, or 1 with a message for a person."""
    folder: Path = args.output
    if not folder.is_dir():
        print(f"trtllm-operator crds: {folder} is not a directory: make it, or name another with --output", file=sys.stderr)
        return 1
    wanted = {definition.file_name: text(definition) for definition in DEFINITIONS}
    different = [name for name, content in wanted.items() if _read(folder / name) != content]
    strange = sorted(path.name for path in folder.glob("*.yaml") if path.name not in wanted)
    if not args.check:
        for name in different:
            (folder / name).write_text(wanted[name], encoding="utf-8")
            print(f"wrote {folder / name}")
    for name in strange:
        print(f"trtllm-operator crds: {folder / name} belongs to no kind: remove it", file=sys.stderr)
    for name in different if args.check else ():
        print(
            f"trtllm-operator crds: {folder / name} is not what the types say: run `trtllm-operator crds --output {folder}`",
            file=sys.stderr,
        )
    return 1 if strange or (args.check and different) else 0


def text(definition: Definition) -> str:
    """The content of the file of one kind."""
    return _HEAD + yaml.dump(definition.document(), Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


class _Dumper(yaml.SafeDumper):
    """Without anchors: equal parts are written twice, because kubectl and people read them better so."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True
