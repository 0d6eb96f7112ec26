"""The operator under cProfile: `PROFILE` names a file for its main thread, and the same with a thread's name for each other thread."""

from __future__ import annotations

import cProfile
import os
import sys
import threading

from trtllm_operator.runtime import main

_profiles: dict[str, cProfile.Profile] = {}


def _profile_threads() -> None:
    run = threading.Thread.run

    def profiled(self: threading.Thread) -> None:
        profile = _profiles[self.name.replace("/", "-")] = cProfile.Profile()
        profile.runcall(run, self)

    threading.Thread.run = profiled  # type: ignore[method-assign]


if __name__ == "__main__":
    path = os.environ["PROFILE"]
    _profile_threads()
    own = cProfile.Profile()
    status = own.runcall(main.main)
    own.dump_stats(path)
    for name, other in _profiles.items():
        other.create_stats()  # of a thread that may go on
        if other.stats:
            other.dump_stats(f"{path}.{name}")
    sys.exit(status)
