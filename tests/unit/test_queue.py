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


async def _elsewhere(queue: Queue, key: Ref, cause: object = None) -> None:
    """It is added by a watch, which is a task of its own, and not by the pass that works on it."""

    async def watch() -> None:
        queue.add(key, cause)

    await asyncio.create_task(watch())


async def test_a_key_that_comes_in_while_worked_on_is_worked_on_again_afterwards() -> None:
    queue = Queue()
    queue.add(A)
    assert await _next(queue) == A
    await _elsewhere(queue, A)
    assert len(queue) == 0
    assert queue.busy == 1
    queue.failed(A, at_least=100)
    queue.done(A)
    assert await _next(queue) == A
    queue.done(A)
    assert len(queue) == 0
    assert queue.busy == 0


async def test_what_a_pass_writes_itself_is_looked_at_once_more_unless_it_fails() -> None:
    queue = Queue()
    queue.add(A)
    assert await _next(queue) == A
    queue.add(A)
    queue.succeeded(A, None)
    queue.done(A)
    assert await _next(queue) == A
    queue.add(A)
    queue.failed(A, at_least=100)
    queue.done(A)
    assert (len(queue), queue.delayed) == (0, 1)
    queue.add(A)
    assert await _next(queue) == A, "news from elsewhere, before the back-off is over"


async def test_what_a_pass_writes_itself_is_its_own_also_where_the_watch_is_faster_than_the_answer() -> None:
    queue = Queue()
    for causes, news in (({"mine": True}, False), ({"mine": True, "another's": False}, True), ({"another's": False}, True)):
        queue.add(A)
        assert await _next(queue) == A
        for cause, own in causes.items():
            await _elsewhere(queue, A, cause)
            if own:
                queue.own(cause)
        queue.failed(A, at_least=100)
        queue.done(A)
        assert len(queue) == news, causes
        if news:
            assert await _next(queue) == A
            queue.done(A)
    queue.add(A)
    assert await _next(queue) == A
    await _elsewhere(queue, A, "mine")
    queue.own("mine")
    queue.succeeded(A, None)
    queue.done(A)
    assert len(queue) == 1, "and is looked at once more if it succeeds"


async def test_what_the_pass_of_another_has_written_is_news() -> None:
    queue = Queue()
    queue.add(A)
    assert await _next(queue) == A
    queue.add(B)

    async def other() -> None:
        assert await _next(queue) == B
        await _elsewhere(queue, A, "of B")
        queue.own("of B")
        queue.done(B)

    await asyncio.create_task(other())
    queue.failed(A, at_least=100)
    queue.done(A)
    assert await _next(queue) == A


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


async def test_a_storm_about_one_key_is_few_passes_and_keeps_no_other_waiting() -> None:
    queue = Queue()
    passes = 0
    async with asyncio.timeout(10):
        while not queue._throttled:
            queue.add(A)
            if not queue._throttled:
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


class Tried:
    """Keys that have failed once, and whose back-off is over."""

    def __init__(self, count: int) -> None:
        self.queue = Queue(first=0.001, chance=lambda: 0.5)
        self.keys = [Ref("LLMService", "ns", f"bad-{number}") for number in range(count)]

    async def fail(self) -> None:
        for key in self.keys:
            self.queue.add(key)
            assert await _next(self.queue) == key
            self.queue.failed(key)
            self.queue.done(key)
        async with asyncio.timeout(5):
            while self.queue._due:  # noqa: ASYNC110 - what is looked at sets no event
                await asyncio.sleep(0.001)


async def test_news_comes_before_what_is_tried_again() -> None:
    tried = Tried(20)
    await tried.fail()
    queue, news = tried.queue, [Ref("LLMService", "ns", f"new-{number}") for number in range(20)]
    for key in news:
        queue.add(key)
    came = [await _next(queue) for _ in range(40)]
    assert [key for key in came if key in news] == news
    assert came[:8] == news[:8]
    assert sum(key in tried.keys for key in came[:22]) == 2, "and yet what is tried again gets a turn now and then"
    assert set(came) == {*news, *tried.keys}


async def test_news_about_what_has_failed_needs_no_allowance_and_does_not_overtake_the_others() -> None:
    tried = Tried(120)
    await tried.fail()
    queue, admitted, held = tried.queue, tried.keys[10], tried.keys[-1]
    assert admitted in queue._rest
    assert held in queue._held
    ahead = list(queue._rest)
    for key in (held, admitted, A):
        queue.add(key)
    came = [await _next(queue) for _ in range(len(ahead) + 2)]
    assert came == [A, *ahead, held], "each once"


async def test_tries_of_all_keys_share_an_allowance() -> None:
    tried, began = Tried(300), asyncio.get_running_loop().time()
    await tried.fail()
    queue = tried.queue
    assert len(queue) == 20
    assert queue.delayed == 300 - len(queue)
    for _ in range(30):
        key = await _next(queue)
        queue.failed(key, at_least=100)
        queue.done(key)
    assert asyncio.get_running_loop().time() - began > 0.9, "ten a second after the burst"
    assert queue.delayed == 300 - len(queue)


async def test_tries_do_not_pile_up_while_news_keeps_the_workers_busy() -> None:
    tried, clock = Tried(300), asyncio.get_running_loop().time
    await tried.fail()
    queue, news, began = tried.queue, 0, clock()
    while clock() - began < 1:
        queue.add(Ref("LLMService", "ns", f"new-{news}"))
        news += 1
        key = await _next(queue)
        if key in tried.keys:
            queue.failed(key, at_least=100)
        else:
            queue.succeeded(key, None)
        queue.done(key)
        await asyncio.sleep(0.1)
    assert len(queue) <= 21, "else they would all be made in a row when there is no news any more"


async def test_when_they_succeed_again_nothing_keeps_them_back() -> None:
    tried = Tried(300)
    await tried.fail()
    queue, came = tried.queue, set()
    for _ in range(300):
        key = await _next(queue, 0.09)  # less than the next share of the allowance takes
        came.add(key)
        queue.succeeded(key, None)
        queue.done(key)
    assert came == set(tried.keys)
    assert (len(queue), queue.delayed, queue.busy) == (0, 0, 0)


async def test_what_was_there_before_the_work_began_is_behind_what_comes_in() -> None:
    queue = Queue()
    old = [Ref("LLMService", "ns", f"old-{number}") for number in range(5)]
    for key in old:
        queue.add(key)
    assert await _next(queue) == old[0]
    queue.add(A)
    queue.add(old[4])
    assert [await _next(queue) for _ in range(5)] == [A, old[4], *old[1:4]]


async def test_what_is_put_off_comes_when_what_waits_has_had_its_turn() -> None:
    queue = Queue()
    new = [Ref("LLMService", "ns", f"new-{number}") for number in range(6)]

    async def put_off(key: Ref) -> None:
        assert await _next(queue) == key
        queue.add(key)  # its own write
        queue.succeeded(key, None)
        queue.put_off(key)
        queue.done(key)

    queue.add(A)
    assert await _next(queue) == A
    for key in new[:3]:
        queue.add(key)
    await put_off(new[0])
    await put_off(new[1])
    assert queue.others_wait
    queue.add(new[0])  # what its children report
    for key in new[3:]:
        queue.add(key)
    assert [await _next(queue) for _ in range(4)] == new[2:]
    assert not queue.others_wait, "nothing but what was put off itself"
    assert [await _next(queue) for _ in range(2)] == new[:2], "each once"
    queue.done(new[0])
    assert len(queue) == 0
    queue.add(new[0])
    assert queue.others_wait, "it is as any other afterwards"


async def test_what_was_there_before_the_work_began_is_put_off_behind_its_like() -> None:
    queue, old = Queue(), [Ref("LLMService", "ns", f"old-{number}") for number in range(3)]
    for key in old:
        queue.add(key)
    for key in old:
        assert await _next(queue) == key
        assert queue.others_wait == (key != old[-1])
        queue.put_off(key)
        queue.done(key)
    assert [await _next(queue) for _ in range(3)] == old


async def test_what_is_put_off_gets_its_turns_while_news_does_not_end() -> None:
    queue = Queue()
    queue.add(A)
    assert await _next(queue) == A
    queue.put_off(A)
    queue.done(A)
    came = []
    for number in range(20):
        queue.add(Ref("LLMService", "ns", f"new-{number}"))
        if number:
            came.append(await _next(queue))
    assert A in came
