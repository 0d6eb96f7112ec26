"""Makes the zipapp: `python -m trtllm_operator.builder.pack OUT.pyz`. Equal sources give equal bytes."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

PACKAGE = "trtllm_operator"
SMOKE = "llmapi_smoke.py"

_TIME = (1980, 1, 1, 0, 0, 0)
_MAIN = "import sys\n\nfrom trtllm_operator.builder.cli import main\n\nsys.exit(main())\n"
_SHEBANG = b"#!/usr/bin/env python3\n"


def build() -> bytes:
    """The zipapp with this package, importable without the rest of trtllm_operator."""
    here = Path(__file__).parent
    members = {"__main__.py": _MAIN.encode(), f"{PACKAGE}/__init__.py": b""}
    members |= {f"{PACKAGE}/builder/{path.name}": path.read_bytes() for path in here.glob("*.py")}
    buffer = io.BytesIO()
    buffer.write(_SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(members.items()):
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def main() -> int:
    """Write the zipapp to the file that the command line names."""
    if len(sys.argv) != 2:
        print("usage: python -m trtllm_operator.builder.pack OUT.pyz", file=sys.stderr)
        return 2
    target = Path(sys.argv[1])
    target.write_bytes(build())
    target.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
