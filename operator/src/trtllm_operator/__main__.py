"""The command line. Only what a sub-command needs is imported, so that help and errors come at once."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import import_module

_COMMANDS = {
    "run": "run the operator; settings come from environment variables",
    "render": "print what would be made from LLMEngines and LLMServices, without a cluster",
    "crds": "write or check the resource definitions",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; its exit status. 2 where the command line is wrong."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["run"]:
        gc.disable()  # until the imports are done: they leave no garbage, and looking for it is a sixth of their time
        return _status(import_module("trtllm_operator.runtime.main").main(given[1:]))
    parser = argparse.ArgumentParser(prog="trtllm-operator", description="Kubernetes operator for TensorRT-LLM: build once, serve many.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    module = None
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if given[:1] == [name]:
            module = import_module(f"trtllm_operator.cli.{name}")
            module.add_arguments(command)
    args = parser.parse_args(given)
    if module is None:  # a word before the sub-command, which argparse lets through
        parser.error("give the sub-command first")
    return _status(module.main(args))


def _status(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a sub-command returned {value!r} instead of an exit status")
    return value


if __name__ == "__main__":
    sys.exit(main())
