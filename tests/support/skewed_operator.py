"""The operator with a clock that is wrong: SKEW_SECONDS ahead of everybody else's (negative: behind). Run as a program."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, tzinfo

from trtllm_operator.runtime import election, main, reconcile

_SKEW = timedelta(seconds=float(os.environ["SKEW_SECONDS"]))


class SkewedDatetime(datetime):
    """As datetime, but for the present."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # plain times go on from here
        """The wrong time."""
        return datetime.now(tz) + _SKEW


if __name__ == "__main__":
    for module in (election, reconcile):
        vars(module)["datetime"] = SkewedDatetime
    sys.exit(main.main())
