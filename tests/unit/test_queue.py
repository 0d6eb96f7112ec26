"""The work queue: once, one worker at a time, never lost, ever more slowly."""

from __future__ import annotations

import asyncio

import pytest

from trtllm_operator.observe.refs import Ref
from trtllm_operator.runtime.queue import Queue

A, B = Ref("LLMService", "ns", "a"), Ref("LLMService", "ns", "b")


async def _next(queue: Queue, seconds: float = 2.0) -> Ref:
    async with asyncio.timeout(seconds):
        return await queue.get()


async def test_a_key_is_in_it_once_and_in_order() -> None:
    queue = Queue()
    for key in (A, B, A):
        queue.add(key)
    assert len(queue) == 2
    assert [await _next(queue), await _next(queue)] == [A, B]


async def test_a_key_that_comes_in_while_worked_on_is_worked_on_again_afterwards() -> None:
    queue = Queue()
    queue.add(A)
    assert await _next(queue) == A
    queue.add(A)
    assert len(queue) == 0
    assert queue.busy == 1
    queue.done(A)
    assert await _next(queue) == A
    queue.done(A)
    assert len(queue) == 0
    assert queue.busy == 0


async def test_due_keys_come_by_time_and_the_last_word_holds() -> None:
    queue = Queue()
    queue.succeeded(A, 0.05)
    queue.succeeded(B, 0.01)
    assert queue.delayed == 2
    assert [await _next(queue), await _next(queue)] == [B, A]
    queue.done(A)
    queue.succeeded(A, 100)
    queue.succeeded(A, 0.01)
    assert await _next(queue) == A
    queue.done(A)
    queue.succeeded(A, 0.01)
    queue.succeeded(A, None)
    assert queue.delayed == 0


async def test_a_schedule_survives_an_event_in_between() -> None:
    queue = Queue()
    queue.succeeded(A, 0.03)
    queue.add(A)
    assert await _next(queue) == A
    queue.done(A)
    assert await _next(queue) == A


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
async def test_back_off_doubles_up_to_a_limit_with_jitter(chance: float) -> None:
    queue = Queue(first=1, longest=8, chance=lambda: chance)
    jitter = 0.75 + 0.5 * chance

    def tried_when_due() -> float:
        queue._due.pop(A, None)  # as when its time has come
        return queue.failed(A)

    assert [tried_when_due() for _ in range(5)] == pytest.approx([f * jitter for f in (1, 2, 4, 8, 8)])
    assert queue.failed(B) == pytest.approx(jitter), "each key has its own"
    queue.succeeded(A, None)
    assert queue.failed(A) == pytest.approx(jitter), "success forgets"


async def test_the_server_may_ask_for_more_patience() -> None:
    queue = Queue(first=0.1)
    assert queue.failed(A, at_least=7) == 7


async def test_forgotten_keys_are_not_due() -> None:
    queue = Queue()
    queue.failed(A)
    queue.forget(A)
    assert queue.delayed == 0


async def test_a_storm_about_one_key_is_few_passes_and_keeps_no_other_waiting() -> None:
    queue = Queue()
    passes = 0
    async with asyncio.timeout(10):
        while len(queue) == 0 or queue._ready.qsize():
            queue.add(A)
            if queue._ready.qsize():
                assert await queue.get() == A
                queue.add(A)  # news while it is worked on
                passes += 1
                queue.done(A)
    assert 50 <= passes <= 52
    queue.add(A)
    assert len(queue) == 1, "it waits for its turn, once"
    queue.add(B)
    assert await _next(queue) == B
    assert await _next(queue) == A, "and is not lost"
    queue.done(A)
    assert len(queue) == 0


async def test_a_pass_between_two_tries_neither_counts_nor_puts_the_next_one_off() -> None:
    queue = Queue(first=1, longest=64, chance=lambda: 0.5)
    first = queue.failed(A)
    for _ in range(5):
        assert queue.failed(A) <= first
    assert queue.delayed == 1
    assert queue.failed(A, at_least=9) == 9, "what the API server asks for holds all the same"
    queue.succeeded(B, 60)
    assert queue.failed(B) == 1, "a look at a later time is no try"
