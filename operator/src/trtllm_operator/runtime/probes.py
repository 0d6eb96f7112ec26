"""Probes. Alive: the loop turns, passes end, the watches hear. Ready: everything was listed once, and not too long ago.

An API server that is away makes nobody dead: a restart would not bring it back, and would forget what is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from trtllm_operator.runtime.freshness import Freshness

STUCK_SECONDS = 300.0
"""A pass that lasts so long does not end by itself: each of its requests has a time limit."""

DEAF_SECONDS = 240.0
"""A watch that stays deaf although it was started anew (`runtime.operator`) is only cured by a new process."""


class Health:
    """What the probes answer from."""

    def __init__(self, freshness: Freshness, longest_pass: Callable[[], float], period: float) -> None:
        """`longest_pass`: seconds of the longest pass that still runs. `period`: seconds between two lists of a kind."""
        self._freshness = freshness
        self._longest_pass = longest_pass
        self._period = period
        self.seeded = False
        self.stopping = False

    def dead(self) -> str | None:
        """Why the process should be started anew, or None."""
        if (stuck := self._longest_pass()) > STUCK_SECONDS:
            return f"a pass has not ended for {stuck:.0f} s"
        if self.seeded and (deaf := self._freshness.deaf_seconds()) > DEAF_SECONDS:
            return f"the watches have not told a change for {deaf:.0f} s"
        return None

    def unready(self) -> str | None:
        """Why the operator does not do its work, or None."""
        if self.stopping:
            return "stopping"
        if not self.seeded:
            return "not everything has been listed yet"
        age, limit = self._freshness.oldest_list(), 3 * self._period + 60
        return f"a kind has not been listed for {age:.0f} s" if age > limit else None


def application(health: Health) -> web.Application:
    """`GET /healthz` and `GET /readyz`: 200 with `ok`, or 503 with the reason."""

    def probe(problem: Callable[[], str | None]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_: web.Request) -> web.StreamResponse:
            found = problem()
            return web.Response(text="ok\n") if found is None else web.Response(status=503, text=f"{found}\n")

        return answer

    app = web.Application()
    app.router.add_get("/healthz", probe(health.dead))
    app.router.add_get("/readyz", probe(health.unready))
    return app
