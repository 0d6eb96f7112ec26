"""The workers: what they leave to others."""

from __future__ import annotations

import asyncio

from trtllm_operator.observe.refs import Ref
from trtllm_operator.runtime.queue import Queue
from trtllm_operator.runtime.reconcile import Outcome
from trtllm_operator.runtime.workers import Workers


async def test_passes_that_wait_for_nothing_leave_turns_to_the_rest_of_the_process() -> None:
    """After a start with nothing changed no pass waits for an answer; a thousand of them in a row would keep the Lease from being renewed."""
    queue, done = Queue(), []

    async def look(key: Ref) -> Outcome:
        done.append(key)
        return Outcome()

    for number in range(100):
        queue.add(Ref("LLMService", "ns", f"s{number}"))
    work = asyncio.create_task(Workers(queue, look, lambda *_: None, 4).run())
    seen = []
    async with asyncio.timeout(5):
        while len(done) < 100:
            await asyncio.sleep(0)  # the turns of somebody else
            seen.append(len(done))
    work.cancel()
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 4, "one pass for each worker in each turn"


async def test_a_pass_that_makes_way_is_made_again_behind_the_others() -> None:
    queue, made = Queue(), []
    done = asyncio.Event()

    async def make_way(key: Ref) -> Outcome:
        again = key.name in made
        made.append(key.name)
        if len(made) == 6:
            done.set()
        return Outcome(put_off=not again)

    for name in "abc":
        queue.add(Ref("LLMService", "ns", name))
    work = asyncio.create_task(Workers(queue, make_way, lambda *_: None, 1).run())
    async with asyncio.timeout(5):
        await done.wait()
    work.cancel()
    assert made == ["a", "b", "c", "a", "b", "c"]
