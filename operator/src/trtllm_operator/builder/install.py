"""`install DIR`: copies the stage program and the smoke test to where another container finds them."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from trtllm_operator.builder import manifest, pack
from trtllm_operator.builder.report import Failure

PROGRAM = "stage.pyz"


def run(directory: Path) -> list[Path]:
    """Copy, readable for every user.

    Returns:
        The files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    smoke = pkgutil.get_data(__package__, pack.SMOKE)
    if smoke is None:
        raise Failure("InternalError", f"{pack.SMOKE} is not in the stage program")
    written = []
    for name, data in ((PROGRAM, _program()), (pack.SMOKE, smoke)):
        path = directory / name
        manifest.replace(path, data)
        path.chmod(0o755)
        written.append(path)
    return written


def _program() -> bytes:
    archive = getattr(__spec__.loader, "archive", None)  # of a zipimporter
    return Path(archive).read_bytes() if archive else pack.build()
