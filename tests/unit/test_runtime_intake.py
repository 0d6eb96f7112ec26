"""What a watch tells reaches the roots that it concerns."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.test_observe_routes import BUILD, ENGINE, OTHER, SERVICE, SOURCE, make
from trtllm_operator.observe import index
from trtllm_operator.observe.refs import Ref
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.intake import Intake
from trtllm_operator.runtime.queue import Queue


class _Noted(Queue):
    """Notes what is put into it, and works on nothing."""

    def __init__(self) -> None:
        self.told: set[Ref] = set()

    def add(self, key: Ref, cause: object = None) -> None:  # noqa: ARG002 - as Queue has it
        self.told.add(key)


def test_a_build_that_goes_just_as_it_was_is_news_to_all_who_need_it() -> None:
    """Fault 31. Nobody made it again, because its last state and the one before it were the same."""
    queue = _Noted()
    intake = Intake(Store(index.terms), queue, Freshness())
    intake.heard("ADDED", make(ENGINE))
    intake.heard("ADDED", make(OTHER, (), spec={"source": SOURCE}))
    build = make(BUILD, (ENGINE, SERVICE), spec={"source": SOURCE}, status={"stages": []})
    intake.heard("ADDED", build)
    queue.told.clear()
    intake.heard("DELETED", make(BUILD, (ENGINE, SERVICE), version=2, spec={"source": SOURCE}, status={"stages": []}))
    assert queue.told == {BUILD, ENGINE, SERVICE, OTHER}
    assert intake.store.get(BUILD) is None


async def test_an_answer_that_the_watch_has_told_before_is_no_news_to_the_pass_that_wrote() -> None:
    queue = Queue()
    intake = Intake(Store(index.terms), queue, Freshness())

    async def write(*states: dict[str, Any]) -> None:
        """A pass that writes the first of these, while the watch tells of all, and that fails then."""
        queue.add(SERVICE)
        assert await queue.get() == SERVICE

        async def watch() -> None:
            for state in states:
                intake.heard("MODIFIED", state)

        await asyncio.create_task(watch())
        intake.wrote(states[0])
        queue.failed(SERVICE, at_least=100)
        queue.done(SERVICE)

    await write(make(SERVICE, version=2))
    assert len(queue) == 0
    await write(make(SERVICE, version=3), make(SERVICE, version=4))
    assert len(queue) == 1
