"""The process: settings, logging, signals, exit status."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from trtllm_operator.runtime import logs
from trtllm_operator.runtime.election import LeadershipLostError
from trtllm_operator.runtime.operator import Operator
from trtllm_operator.runtime.reconcile import Deciders
from trtllm_operator.runtime.settings import Settings, SettingsError, read_settings

_log = logging.getLogger(__name__)

_STOP_SECONDS = 4.5
"""From the signal to the end, whatever hangs: pods get 30 s, but an update waits for us."""

_YOUNG = 10_000
"""New containers before garbage is looked for. Objects of the API server are trees and make none; by default each few of them start a look."""


def deciders() -> Deciders:
    """The decision functions of this version."""
    from trtllm_operator.decide import build, engine, service  # noqa: PLC0415 - only the running operator needs them all

    return Deciders(engine=engine.decide, build=build.decide, service=service.decide)


def main(args: Sequence[str] = ()) -> int:
    """Run the operator until SIGTERM or SIGINT; returns the exit status. Settings come from the environment, see `runtime.settings`."""
    parser = argparse.ArgumentParser(prog="trtllm-operator run", description="Run the operator. Settings come from environment variables.")
    parser.parse_args(list(args))
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run(settings, deciders())


def run(settings: Settings, functions: Deciders) -> int:
    """Run with these decision functions; returns the exit status."""
    logs.configure(settings.log_format)
    # Watches have a thread of their own; with the default of 5 ms, each wait for an answer could cost a pass that much.
    sys.setswitchinterval(0.001)
    gc.freeze()  # what was imported stays
    gc.set_threshold(_YOUNG)
    gc.enable()
    try:
        asyncio.run(_run(settings, functions))
    except LeadershipLostError as error:
        _log.error("stopping: %s", error)
        return 1
    except Exception:  # noqa: BLE001 - whatever it was, it is told and the process is started anew
        _log.exception("the operator ended with an error")
        return 1
    return 0


async def _run(settings: Settings, functions: Deciders) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(name: str) -> None:
        if not stop.is_set():
            _log.info("%s: stopping", name)
            stop.set()
            timer = threading.Timer(_STOP_SECONDS, os._exit, (0,))
            timer.daemon = True
            timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number.name)
    await Operator(settings, functions).run(stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
