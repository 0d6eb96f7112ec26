"""Do the watches still hear? Known from what they must tell: each change that we learn of elsewhere (by a list, by the answer to a
write) has to arrive through the watch as well. One that stays out for a minute means that the watch is deaf.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from trtllm_operator.observe.refs import Obj, Ref, ref_of, version_of


class Freshness:
    """When what was heard, by kind. Seconds are of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._awaited: dict[Ref, tuple[int, float]] = {}
        self._listed: dict[str, float] = {}
        self._unserved: set[str] = set()
        self._started = clock()

    def await_watch(self, obj: Obj) -> None:
        """A version that is known from elsewhere: the watch must tell it, too."""
        ref = ref_of(obj)
        since = self._awaited[ref][1] if ref in self._awaited else self._clock()
        self._awaited[ref] = (version_of(obj), since)

    def heard(self, obj: Obj) -> None:
        """The watch told this version."""
        if not self._awaited:
            return
        ref = ref_of(obj)
        awaited = self._awaited.get(ref)
        if awaited is not None and version_of(obj) >= awaited[0]:
            del self._awaited[ref]

    def vanished(self, ref: Ref) -> None:
        """It is gone: the watch may or may not tell (after an expired watch it does not)."""
        self._awaited.pop(ref, None)

    def caught_up(self, kind: str, version: str, namespace: str = "") -> None:
        """A watch of the kind begins after this version: it tells nothing up to there."""
        as_of = int(version) if version.isdigit() else 0
        known = [ref for ref, (awaited, _) in self._awaited.items() if ref.kind == kind and awaited <= as_of]
        for ref in known:
            if not namespace or ref.namespace == namespace:
                del self._awaited[ref]

    def listed(self, kind: str) -> None:
        """A complete list of the kind was taken in."""
        self._listed[kind] = self._clock()
        self._unserved.discard(kind)

    def unserved(self, kind: str) -> None:
        """The API server says that it does not know the kind: its CRD was removed, or is not back yet."""
        self._unserved.add(kind)

    def serves(self, kind: str) -> bool:
        """Whether the API server knows the kind, as far as the last list told. Where it does not, what is known of it may be long gone."""
        return kind not in self._unserved

    def reset(self) -> None:
        """The watches were started anew: what they missed, they get with their first list or we with ours."""
        self._awaited.clear()

    def deaf_seconds(self) -> float:
        """How long the oldest change has not been told by the watch."""
        return max(0.0, self._clock() - min((since for _, since in self._awaited.values()), default=self._clock()))

    def list_ages(self) -> dict[str, float]:
        """Seconds since the last complete list, by kind."""
        now = self._clock()
        return {kind: now - when for kind, when in self._listed.items()}

    def oldest_list(self) -> float:
        """Seconds since the list that is longest ago, or since the start."""
        return max(self.list_ages().values(), default=self._clock() - self._started)
