"""Leader election by a Lease: of several operators, one works. The rules and the figures are those of client-go's leaderelection.

A Lease is taken when it was given back, or when no renewal of it was seen for its whole duration, by the own monotonic clock: clocks of
different machines are never compared. What holds it may write for as long as it has renewed it shortly before (`holds`), which is
shorter than what the others wait; so one that was stopped and goes on later writes nothing any more.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from trtllm_operator.kube import lease
from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import ApiError, ConflictError, ForbiddenError, NotFoundError

_log = logging.getLogger(__name__)

_LONGEST_SECONDS = 300
"""Somebody else's Lease is not believed to hold for longer."""


class LeadershipLostError(Exception):
    """The Lease was not renewed in time, or somebody else has it. The process ends: another one works now."""


@dataclass(frozen=True)
class Terms:
    """Where the Lease is, and seconds. Source of the figures: k8s.io/client-go/tools/leaderelection."""

    namespace: str
    name: str = "trtllm-operator"
    lease_seconds: float = 15.0
    """Without a renewal for so long, others take it."""
    renew_seconds: float = 10.0
    """Without a renewal for so long, the holder gives up."""
    retry_seconds: float = 2.0
    """Between two attempts, of the holder and of the others."""


class Elector:
    """One candidate."""

    def __init__(
        self,
        client: Client,
        terms: Terms,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`client` is not used for anything else, so that renewals never wait for other requests. `identity` is nobody else's."""
        self._client = client
        self._terms = terms
        self._identity = identity
        self._clock = clock
        self._now = now
        self._seen = lease.NOBODY
        self._seen_at = clock()
        self._renewed_at: float | None = None
        self._said = ""

    def holds(self) -> bool:
        """Whether it may write at this very moment."""
        return self._renewed_at is not None and self._clock() - self._renewed_at < self._terms.renew_seconds

    async def acquire(self) -> None:
        """Wait until it holds the Lease, however long that takes."""
        while not await self._attempt():
            await self._pause()
        _log.info("leading: %s holds the Lease %s/%s", self._identity, self._terms.namespace, self._terms.name)

    async def hold(self) -> None:
        """Renew, for ever.

        Raises:
            LeadershipLostError: that did not succeed in time.
        """
        while True:
            await self._pause()
            try:
                async with asyncio.timeout(self._terms.renew_seconds):
                    held = await self._attempt()
            except TimeoutError:
                held = False
            if held:
                continue
            if self._seen.holder not in ("", self._identity):
                self._renewed_at = None
                raise LeadershipLostError(f"{self._seen.holder} has taken the Lease")
            if not self.holds():
                raise LeadershipLostError(f"the Lease could not be renewed for {self._terms.renew_seconds:g} s")

    async def release(self) -> None:
        """Give it back, so that another one need not wait. Does nothing where it is not held; never raises."""
        held, self._renewed_at = self._renewed_at is not None, None
        if not held:
            return
        namespace, name = self._terms.namespace, self._terms.name
        stamp = lease.stamp(self._now())
        try:
            seen = await lease.read(self._client, namespace, name)  # a renewal that was cut off may have arrived
            if seen.holder == self._identity:
                await lease.write(self._client, namespace, name, replace(seen, holder="", seconds=1, acquired=stamp, renewed=stamp))
        except ApiError as error:
            _log.info("the Lease was not given back; others take it in %g s: %s", self._terms.lease_seconds, error)
        else:
            _log.info("the Lease is given back")

    async def _attempt(self) -> bool:
        """Take or renew; whether that succeeded. What goes wrong is told once and tried again."""
        try:
            return await self._take()
        except ConflictError:
            return False  # somebody was faster
        except ForbiddenError as error:
            self._say(f"no right to the Lease {self._terms.namespace}/{self._terms.name}; apply the operator's RBAC. {error}")
        except ApiError as error:
            self._say(f"the Lease can't be had at the moment: {error}")
        return False

    async def _take(self) -> bool:
        terms = self._terms
        if self._renewed_at is None or not self._seen.version:
            self._observe(await lease.read(self._client, terms.namespace, terms.name))
        seen = self._seen
        began = self._clock()
        if seen.holder not in ("", self._identity):
            free_in = min(seen.seconds, _LONGEST_SECONDS) - (began - self._seen_at)
            if free_in > 0:
                self._say(f"waiting: {seen.holder} leads", logging.INFO)
                return False
        stamp = lease.stamp(self._now())
        mine = seen.holder == self._identity
        wanted = lease.Held(
            holder=self._identity,
            seconds=max(1, round(terms.lease_seconds)),
            acquired=seen.acquired if mine and seen.acquired else stamp,
            renewed=stamp,
            transitions=seen.transitions + (0 if mine or not seen.version else 1),
            version=seen.version,
        )
        try:
            self._observe(await lease.write(self._client, terms.namespace, terms.name, wanted))
        except ConflictError:
            self._observe(await lease.read(self._client, terms.namespace, terms.name))
            raise
        except NotFoundError:
            self._observe(lease.NOBODY)  # somebody has deleted it; it is made anew
            raise
        self._renewed_at = began  # what the others see begins later, so they wait longer than this
        self._said = ""
        return True

    def _observe(self, found: lease.Held) -> None:
        if found != self._seen:
            self._seen, self._seen_at = found, self._clock()

    async def _pause(self) -> None:
        await asyncio.sleep(self._terms.retry_seconds * (0.9 + 0.2 * random.random()))  # noqa: S311 - jitter, no secret

    def _say(self, text: str, level: int = logging.WARNING) -> None:
        if text != self._said:
            _log.log(level, "%s", text)
        self._said = text
