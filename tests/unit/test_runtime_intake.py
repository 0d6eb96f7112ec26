"""What a watch tells reaches the roots that it concerns."""

from __future__ import annotations

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

    def add(self, ref: Ref) -> None:
        self.told.add(ref)


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
