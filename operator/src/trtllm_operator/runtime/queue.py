"""The queue of roots that must look again. A key is in it once, is worked on by one worker at a time, and is never lost.

The rules are those of client-go's workqueue: a key that comes in while it is worked on is worked on again afterwards. One that comes in
all the time is worked on once a second after a while, so that a storm of changes becomes few writes.

What fails must not keep what is new waiting. So there are two lanes: news, and the rest, which is what has failed, what was there before the
work began, and what a pass has put off so that others get their turn; of nine passes the rest gets one, and all that news leaves. And tries
that nothing but the back-off asks for share one allowance of all keys, as with client-go. Unlike there, a try that succeeds gives it back:
when what they failed of is over, they come as fast as they can be made. And no more of them wait for a worker than may come in a row: else
those that news keeps back would pile up, and all come in a row when there is a moment without news.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable

from trtllm_operator.observe.refs import Ref

_FIRST_SECONDS = 0.25
_LONGEST_SECONDS = 300.0
_BURST = 50.0  # passes of one key in a row; then one a second
_PER_SECOND = 1.0
_TRIES_PER_SECOND = 10.0  # of all keys together, as in client-go's DefaultTypedControllerRateLimiter
_TRIES_BURST = 20.0  # twice what WORKERS is unless set; there it is 100, but what succeeds does not give its share back
_NEWS_IN_A_ROW = 8
_REMEMBERED = 4096
_JITTER = 0.25  # of the delay, either way, so that what failed together does not come back together


class Queue:
    """Belongs to the event loop that it is used in."""

    def __init__(
        self, *, first: float = _FIRST_SECONDS, longest: float = _LONGEST_SECONDS, chance: Callable[[], float] = random.random
    ) -> None:
        """`first` and `longest`: seconds of back-off. `chance` gives jitter in [0, 1)."""
        self._first = first
        self._longest = longest
        self._chance = chance
        self._news: OrderedDict[Ref, None] = OrderedDict()
        self._rest: OrderedDict[Ref, None] = OrderedDict()
        self._entered = asyncio.Semaphore(0)  # as many as there are keys in both
        self._in_a_row = 0
        self._begun = False
        self._dirty: set[Ref] = set()  # waits, or will be tried again as soon as it may
        self._processing: dict[Ref, asyncio.Task[object] | None] = {}
        self._meanwhile: dict[Ref, set[Hashable]] = {}  # worked on, and what has happened about it since that began
        self._echoes: set[Ref] = set()  # worked on, and changed by that work itself
        self._put_off: set[Ref] = set()  # until their next pass begins
        self._put_off_waiting = 0
        self._failures: dict[Ref, int] = {}
        self._throttled: set[Ref] = set()
        self._allowances: OrderedDict[Ref, tuple[float, float]] = OrderedDict()
        self._held: OrderedDict[Ref, None] = OrderedDict()  # to be tried again as soon as the allowance of all lets them
        self._trying: set[Ref] = set()  # admitted, and not over yet
        self._tries = (_TRIES_BURST, 0.0)
        self._admission: asyncio.TimerHandle | None = None
        self._due: dict[Ref, float] = {}
        self._heap: list[tuple[float, int, Ref]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Keys that wait for a worker, or for their turn after a storm."""
        return len(self._news) + len(self._rest) + len(self._throttled)

    @property
    def others_wait(self) -> bool:
        """Whether anything waits for a worker but what was put off."""
        return len(self._news) + len(self._rest) > self._put_off_waiting

    @property
    def busy(self) -> int:
        """Keys that are worked on."""
        return len(self._processing)

    @property
    def delayed(self) -> int:
        """Keys that are due later, or that wait until so many may be tried again."""
        return len(self._due) + len(self._held)

    def add(self, key: Ref, cause: Hashable = None) -> None:
        """Look at it as soon as a worker is free. `cause` names what has happened, for `own`.

        What a pass itself has written about its key is news only if the pass succeeds: one that fails is tried again anyway, when its
        back-off is over.
        """
        if key in self._processing:
            if self._processing[key] is asyncio.current_task():
                self._echoes.add(key)
            else:
                self._meanwhile.setdefault(key, set()).add(cause)
        elif key in self._dirty:
            self._prefer(key)
        else:
            self._dirty.add(key)
            self._enter(key)

    def own(self, cause: Hashable) -> None:
        """What the pass of this task has written, where a watch told of it before the answer came."""
        task = asyncio.current_task()
        for key in [key for key, worker in self._processing.items() if worker is task and cause in self._meanwhile.get(key, ())]:
            self._echoes.add(key)
            self._meanwhile[key].discard(cause)

    def put_off(self, key: Ref) -> None:
        """Called before `done`: go on with it behind all that waits now, whatever is told of it meanwhile."""
        self._put_off.add(key)

    async def get(self) -> Ref:
        """The next key; `done` must follow."""
        self._begun = True
        await self._entered.acquire()
        key = self._choose()
        if key in self._put_off:
            self._put_off.discard(key)
            self._put_off_waiting -= 1
        self._dirty.discard(key)
        self._processing[key] = asyncio.current_task()
        self._allowances[key] = (self._allowance(key) - 1.0, asyncio.get_running_loop().time())
        self._allowances.move_to_end(key)
        while len(self._allowances) > _REMEMBERED:
            self._allowances.popitem(last=False)
        return key

    def done(self, key: Ref) -> None:
        """The worker is done with it."""
        self._processing.pop(key, None)
        if self._meanwhile.pop(key, None) or key in self._echoes or key in self._put_off:
            self._dirty.add(key)
            self._enter(key)
        self._echoes.discard(key)

    def succeeded(self, key: Ref, again_after: float | None) -> None:
        """Forget its failures; look again after so many seconds, or only when something happens."""
        self._failures.pop(key, None)
        if key in self._trying:
            self._trying.discard(key)
            self._tries = (self._tries_left() + 1.0, asyncio.get_running_loop().time())
            self._admit()
        if again_after is None:
            self._due.pop(key, None)
        else:
            self._schedule(key, max(0.0, again_after))

    def failed(self, key: Ref, at_least: float = 0.0) -> float:
        """Look again after a back-off that doubles with each failure; returns its seconds.

        A pass between two tries, because something happened, neither puts the next try off nor counts: else a resource about which much
        happens would wait longest.
        """
        if key in self._trying:
            self._trying.discard(key)
            self._admit()
        self._echoes.discard(key)
        failures = self._failures.get(key, 0)
        pending = self._due.get(key, 0.0) - asyncio.get_running_loop().time()
        if failures and pending > at_least:
            return pending
        self._failures[key] = failures + 1
        delay = min(self._longest, self._first * 2.0 ** min(failures, 32)) * (1 - _JITTER + 2 * _JITTER * self._chance())
        delay = max(delay, at_least)
        self._schedule(key, delay)
        return delay

    def _allowance(self, key: Ref) -> float:
        """Passes that the key may have right now."""
        left, when = self._allowances.get(key, (_BURST, 0.0))
        return min(_BURST, left + (asyncio.get_running_loop().time() - when) * _PER_SECOND)

    def _enter(self, key: Ref) -> None:
        missing = 1.0 - self._allowance(key)
        if missing <= 0:
            self._line_up(key)
        else:
            self._throttled.add(key)
            asyncio.get_running_loop().call_later(missing / _PER_SECOND, self._release, key)

    def _release(self, key: Ref) -> None:
        self._throttled.discard(key)
        self._line_up(key)

    def _line_up(self, key: Ref) -> None:
        (self._news if self._is_news(key) else self._rest)[key] = None
        self._put_off_waiting += key in self._put_off
        self._entered.release()

    def _is_news(self, key: Ref) -> bool:
        return self._begun and key not in self._failures and key not in self._put_off

    def _prefer(self, key: Ref) -> None:
        """There is news about a key that waits already."""
        if key in self._held:
            del self._held[key]
            self._enter(key)
        elif key in self._rest and self._is_news(key):
            del self._rest[key]
            self._news[key] = None

    def _choose(self) -> Ref:
        if self._rest and (not self._news or self._in_a_row >= _NEWS_IN_A_ROW):
            self._in_a_row = 0
            return self._rest.popitem(last=False)[0]
        self._in_a_row = self._in_a_row + 1 if self._rest else 0
        return self._news.popitem(last=False)[0]

    def _again(self, key: Ref) -> None:
        """It has failed, and its back-off is over."""
        if key in self._processing:
            self._meanwhile.setdefault(key, set()).add(None)
        elif key not in self._dirty:
            self._dirty.add(key)
            self._held[key] = None

    def _tries_left(self) -> float:
        left, when = self._tries
        return min(_TRIES_BURST, left + (asyncio.get_running_loop().time() - when) * _TRIES_PER_SECOND)

    def _admit(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._tries_left()
        while self._held and left >= 1.0 and len(self._trying) < _TRIES_BURST:
            left -= 1.0
            key, _ = self._held.popitem(last=False)
            self._trying.add(key)
            self._enter(key)
        self._tries = (left, loop.time())
        if self._admission is not None:
            self._admission.cancel()
            self._admission = None
        if self._held and left < 1.0:
            self._admission = loop.call_later((1.0 - left) / _TRIES_PER_SECOND, self._admit)

    def _schedule(self, key: Ref, delay: float) -> None:
        due = asyncio.get_running_loop().time() + delay
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._arm()

    def _arm(self) -> None:
        # Entries that were replaced or cancelled stay in the heap until they come to the top.
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = asyncio.get_running_loop().call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                if key in self._failures:
                    self._again(key)
                else:
                    self.add(key)
        self._admit()
        self._arm()
