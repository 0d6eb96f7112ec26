"""Writes the small model as a directory in Hugging Face layout: `python make_model.py DIRECTORY [--revision N]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

from model_hub.tiny_llama.files import repository
from model_hub.tiny_llama.text import LATEST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where to write the files; made if it does not exist")
    parser.add_argument("--revision", type=int, choices=range(1, LATEST + 1), default=LATEST)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name, content in repository(arguments.revision).items():
        (arguments.directory / name).write_bytes(content)
        print(f"{name}: {len(content)} bytes")


if __name__ == "__main__":
    main()
