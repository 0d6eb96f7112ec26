"""Puts the parts together and runs them until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from trtllm_operator.kube.client import Client, load_configuration
from trtllm_operator.kube.events import EventPoster
from trtllm_operator.kube.resources import CHILDREN, NODE, ROOTS
from trtllm_operator.observe import index
from trtllm_operator.observe.gather import Gatherer
from trtllm_operator.observe.hints import HintBook
from trtllm_operator.observe.refs import ref_of
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime import metrics as metrics_app
from trtllm_operator.runtime import probes
from trtllm_operator.runtime.election import Elector
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.hints import ApiReads, HintPoller
from trtllm_operator.runtime.intake import Intake
from trtllm_operator.runtime.metrics import Metrics, StateCollector
from trtllm_operator.runtime.probes import Health
from trtllm_operator.runtime.queue import Queue
from trtllm_operator.runtime.reconcile import Deciders, Reconciler
from trtllm_operator.runtime.relist import Relister
from trtllm_operator.runtime.settings import Settings
from trtllm_operator.runtime.watches import Watches
from trtllm_operator.runtime.workers import Workers
from trtllm_operator.runtime.writer import Writer

_log = logging.getLogger(__name__)

_DEAF_SECONDS = 60.0
_DRAIN_SECONDS = 2.0
_CHECK_SECONDS = 10.0


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings, deciders: Deciders) -> None:
        self._settings = settings
        self._deciders = deciders
        self._metrics = Metrics()
        self._freshness = Freshness()
        self._queue = Queue()
        self._store = Store(index.terms)
        self._intake = Intake(self._store, self._queue, self._freshness)
        self._runners: list[web.AppRunner] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`.

        Raises:
            Exception: a part ended that never should; the process is best started anew.
        """
        election = Client(await load_configuration(), user_agent="trtllm-operator-election")
        terms = self._settings.election
        elector = Elector(election, terms, self._settings.instance) if terms is not None else None
        client = Client(
            await load_configuration(),
            observer=self._metrics.requested,
            may_write=elector.holds if elector is not None else lambda: True,
        )
        try:
            await self._run(client, elector, stop)
        finally:
            if elector is not None:
                await elector.release()
            for runner in self._runners:
                await runner.cleanup()
            await client.close()
            await election.close()

    async def _run(self, client: Client, elector: Elector | None, stop: asyncio.Event) -> None:
        settings = self._settings
        resources = [*ROOTS, *CHILDREN, *((NODE,) if settings.read_nodes else ())]
        relister = Relister(client, self._intake, self._freshness, resources, settings.namespaces, settings.relist_seconds)
        hints = HintBook()
        gatherer = Gatherer(self._store, hints, settings.config, reads_nodes=lambda: relister.reads_nodes)
        reconciler = Reconciler(
            self._store,
            gatherer,
            Writer(client, self._intake, self._metrics.idle_writes.inc),
            EventPoster(client, settings.instance),
            self._deciders,
            serves=self._freshness.serves,
            others_wait=lambda: self._queue.others_wait,
        )
        workers = Workers(self._queue, reconciler.run, self._metrics.passed, settings.workers)
        health = Health(self._freshness, workers.longest_pass, settings.relist_seconds)
        self._metrics.registry.register(StateCollector(self._store, self._queue, self._freshness))
        await self._serve(probes.application(health), settings.probes_port, "probes")
        await self._serve(metrics_app.application(self._metrics), settings.metrics_port, "metrics")

        if not await _unless(stop, relister.seed()):
            return
        health.seeded = True
        gc.collect()
        gc.freeze()  # what was listed stays: collecting it over and over would only cost time
        _log.info("listed %d objects", len(self._store))
        poller = HintPoller(ApiReads(client), self._store, hints, self._queue.add)
        watches = Watches(client, relister, relister.resources, settings.namespaces, self._intake.heard)
        relister.recovered = watches.recovered
        await self._work(relister, watches, self._lead(elector, workers, poller), workers, health, stop)

    async def _lead(self, elector: Elector | None, workers: Workers, poller: HintPoller) -> None:
        """Work, once no other operator does. Everything is listed and watched already, so that nothing but passes is left to do."""
        if elector is not None:
            await elector.acquire()
        self._metrics.leading.set(1)
        for resource in ROOTS:
            for obj in self._store.of_kind(resource.kind):
                self._queue.add(ref_of(obj))
        tasks = [workers.run(), poller.run(), *([elector.hold()] if elector is not None else [])]
        running = [asyncio.create_task(task) for task in tasks]
        try:
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()

    async def _work(
        self,
        relister: Relister,
        watches: Watches,
        leading: Coroutine[Any, Any, None],
        workers: Workers,
        health: Health,
        stop: asyncio.Event,
    ) -> None:
        tasks = [
            asyncio.create_task(leading, name="workers"),
            asyncio.create_task(relister.run(), name="lists"),
            asyncio.create_task(watches.run(), name="watches"),
            asyncio.create_task(self._listen(watches), name="watch of the watches"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            health.stopping = True
            await workers.drain(_DRAIN_SECONDS)
            ended = [task for task in tasks if task.done()]
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)
        for task in ended:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
            _log.error("%s ended by itself", task.get_name())

    async def _listen(self, watches: Watches) -> None:
        """Start the watches anew when they miss what they must tell."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            deaf = self._freshness.deaf_seconds()
            silent = {kind for kind in watches.silent() if self._freshness.serves(kind)}  # the others are waited for by lists
            if deaf > _DEAF_SECONDS or silent:
                _log.warning(
                    "starting the watches anew: %s",
                    f"not watched: {sorted(silent)}" if silent else f"a change has not been told for {deaf:.0f} s",
                )
                self._metrics.watch_starts.inc()
                watches.restart()

    async def _serve(self, app: web.Application, port: int, what: str) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "", port)  # all addresses, of both families
        await site.start()
        address = runner.addresses[0]
        _log.info("%s on port %d", what, address[1])


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, or give it up when told to stop; whether it was done."""
    doing, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not doing.done():
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        return False
    doing.result()
    return True
