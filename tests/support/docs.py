"""The generated pages of operator/docs: what they should say. Run as a program, it writes them; a unit test compares."""

from __future__ import annotations

from pathlib import Path

from tests.support import faults_table
from trtllm_operator.api import reasons
from trtllm_operator.api.crdgen import reference
from trtllm_operator.api.crdgen.definition import DEFINITIONS

DOCS = Path(__file__).parents[2] / "operator" / "docs"


def pages() -> dict[Path, str]:
    """Each generated page and its text."""
    kinds = {DOCS / "reference" / f"{d.names.kind.lower()}.md": reference.markdown(d) for d in DEFINITIONS}
    return {DOCS / "reasons.md": reasons.markdown(), DOCS / "faults.md": faults_table.markdown(), **kinds}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
