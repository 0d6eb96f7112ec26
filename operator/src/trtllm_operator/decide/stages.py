"""One stage, decided from its Jobs, their pods and what the status recorded: done, running, failed, to be tried again, to be started.

The record outlives the Jobs. Jobs that there are win over it, so a status that was lost is made again from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from trtllm_operator.api.common import Progress, Stage, StageName
from trtllm_operator.api.reasons import needs_person, retry_of
from trtllm_operator.decide.conditions import timestamp
from trtllm_operator.decide.decision import Apply, Delete
from trtllm_operator.decide.input import Hints, Obj
from trtllm_operator.decide.podstate import Problem, failure, pod_problem, problem, report
from trtllm_operator.desired import names
from trtllm_operator.desired.config import Config
from trtllm_operator.desired.jobs import JobInput, input_hash, job_object, tools_image_of

_FIRST_DELAY = {"counted": 10, "free": 5, "backoff": 30}
_LONGEST_DELAY = {"counted": 300, "free": 60, "backoff": 600}


@dataclass(frozen=True)
class StageView:
    """What one stage says to its root object."""

    record: Stage
    facts: Mapping[str, Any] = field(default_factory=dict)
    apply: tuple[Apply, ...] = ()
    delete: tuple[Delete, ...] = ()
    problem: Problem | None = None
    """Why it is not under way as it should be; `stalled` where a person must act."""
    progress: Progress | None = None
    requeue_after: float | None = None

    @property
    def done(self) -> bool:
        return self.record.state in ("Succeeded", "Skipped")


def parse_time(text: str | None) -> datetime | None:
    """A Kubernetes time."""
    return datetime.fromisoformat(text) if text else None


def skipped(name: StageName) -> StageView:
    """A stage that this recipe does not have."""
    return StageView(Stage(name=name, state="Skipped"))


def attempt_of(job: Obj) -> int:
    """Number of a Job's attempt, from 1."""
    return int(job["metadata"].get("annotations", {}).get(names.ATTEMPT, "1"))


def jobs_of(jobs: Sequence[Obj], make: Callable[[int], JobInput]) -> list[Obj]:
    """The Jobs of this stage and input name, oldest attempt first."""
    sample = make(0)
    mine = [
        job
        for job in jobs
        if job["metadata"].get("labels", {}).get(names.STAGE) == sample.stage
        and job["metadata"]["name"] == names.job_name(sample.owner_name, sample.stage, attempt_of(job), sample.discriminator)
    ]
    return sorted(mine, key=attempt_of)


def is_over(job: Obj) -> bool:
    """Has the Job ended, one way or the other?"""
    return _finished(job) is not None


def removed(record: Stage, jobs: Sequence[Obj]) -> StageView:
    """Jobs that work for nothing any more go, and are gone before another one starts."""
    gone = tuple(_deletion(job) for job in jobs if "deletionTimestamp" not in job["metadata"])
    return StageView(record, delete=gone, progress=Progress(stage=record.name, percent=0, message="starting"))


def _deletion(job: Obj) -> Delete:
    metadata = job["metadata"]
    return Delete("batch/v1", "Job", metadata["namespace"], metadata["name"], metadata["uid"])


def _finished(job: Obj) -> str | None:
    for condition in job.get("status", {}).get("conditions", ()):
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            return str(condition["type"])
    return None


def _pods_of(job: Obj, pods: Sequence[Obj]) -> list[Obj]:
    uid = job["metadata"].get("uid")
    mine = [pod for pod in pods if any(ref.get("uid") == uid for ref in pod["metadata"].get("ownerReferences", ()))]
    return sorted(mine, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def _end_of(job: Obj) -> str | None:
    if when := job.get("status", {}).get("completionTime"):
        return str(when)
    for condition in job.get("status", {}).get("conditions", ()):
        if condition.get("type") == "Failed":
            return str(condition.get("lastTransitionTime")) if condition.get("lastTransitionTime") else None
    return None


def _ran_seconds(pods: Sequence[Obj], now: datetime) -> int:
    """Seconds that containers of the pods ran, which is how long GPUs were held to work."""
    total = 0.0
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses", ()):
            state = container.get("state", {})
            ended, running = state.get("terminated"), state.get("running")
            start = parse_time((ended or running or {}).get("startedAt"))
            end = parse_time(ended.get("finishedAt")) if ended else now
            if start and end:
                total += max(0.0, (end - start).total_seconds())
    return int(total)


def _delay(retry: str, attempts: int) -> float:
    return float(min(_LONGEST_DELAY[retry], _FIRST_DELAY[retry] * 2 ** max(0, attempts - 1)))


def run(
    make: Callable[[int], JobInput],
    jobs: Sequence[Obj],
    pods: Sequence[Obj],
    recorded: Stage | None,
    config: Config,
    now: datetime,
    *,
    hints: Hints,
    nodes: Sequence[Obj] | None = None,
    hold: Problem | None = None,
) -> StageView:
    """Decide one stage.

    `make(attempt)` gives the Job's input; `recorded` is the status' entry for this very input name (None after a change of it);
    `hold` says why nothing new may be started (suspended, somebody else fetches).
    """
    sample = make(0)
    made_from = input_hash(sample, config)
    own = jobs_of(jobs, make)
    if recorded is not None and recorded.state in ("Succeeded", "Skipped"):
        return StageView(recorded)
    newest = own[-1] if own else None
    if newest is not None and recorded is not None and recorded.attempts > attempt_of(newest):
        newest = None  # older than what the record speaks of
    if newest is None:
        return _without_job(make, recorded, made_from, config, now, hold)
    record = Stage(
        name=sample.stage,
        state="Running",
        attempts=attempt_of(newest),
        started_at=newest["metadata"].get("creationTimestamp"),
        input=newest["metadata"].get("annotations", {}).get(names.INPUT),
        gpu_seconds=recorded.gpu_seconds if recorded else None,
    )
    own_pods = _pods_of(newest, pods)
    match _finished(newest):
        case None:
            outdated = record.input != made_from or tools_image_of(newest) != config.tools_image
            return _running(newest, own_pods, record, recorded, sample, hints, nodes, outdated=outdated)
        case "Complete":
            said = next((r for pod in reversed(own_pods) if (r := report(pod)) and r.ok), None)
            if said is not None:
                done = record.model_copy(update={"state": "Succeeded", "finished_at": _end_of(newest)})
                return StageView(_with_gpus(done, recorded, sample, own_pods, now), facts=said.facts)
            lost = f"Job {newest['metadata']['name']} is complete, but its pod, and with it the report, is gone."
            found = Problem("InternalError", lost)
        case _:
            found = _why_failed(newest, own_pods)
    failed = record.model_copy(
        update={"state": "Failed", "finished_at": _end_of(newest), "reason": found.reason, "message": found.message[:4096]}
    )
    return _after_failure(make, _with_gpus(failed, recorded, sample, own_pods, now), made_from, config, now, hold)


def _with_gpus(record: Stage, recorded: Stage | None, sample: JobInput, pods: Sequence[Obj], now: datetime) -> Stage:
    if not sample.gpus:
        return record
    if recorded is not None and recorded.attempts == record.attempts and recorded.state in ("Succeeded", "Failed"):
        return record.model_copy(update={"gpu_seconds": recorded.gpu_seconds})
    spent = (recorded.gpu_seconds or 0) if recorded else 0
    return record.model_copy(update={"gpu_seconds": spent + sample.gpus * _ran_seconds(pods, now)})


def _why_failed(job: Obj, pods: Sequence[Obj]) -> Problem:
    why: Obj = next((c for c in job.get("status", {}).get("conditions", ()) if c.get("type") == "Failed"), {})
    if why.get("reason") == "DeadlineExceeded":
        return problem("DeadlineExceeded", f"Job {job['metadata']['name']} ran longer than its activeDeadline")
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    if failed:
        return failure(failed[-1])
    said = f" ({why['message']})" if why.get("message") else ""
    return Problem("InternalError", f"Job {job['metadata']['name']} failed{said}, and its pod is gone, so the cause is not known.")


def _running(
    job: Obj,
    pods: Sequence[Obj],
    record: Stage,
    recorded: Stage | None,
    sample: JobInput,
    hints: Hints,
    nodes: Sequence[Obj] | None,
    *,
    outdated: bool,
) -> StageView:
    metadata = job["metadata"]
    live = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")]
    # What has ended has run, and the Job counts it in a moment. It must neither look as if it waited nor be replaced as if it did.
    ended = bool(pods) and not live
    started = ended or any(pod.get("status", {}).get("phase") == "Running" for pod in live)
    if not started and outdated and "deletionTimestamp" not in metadata:
        # It waits for something, and what it is made from has changed since: start again with what holds now.
        return StageView(record.model_copy(update={"state": "Pending"}), delete=(_deletion(job),))
    found = next((p for pod in live if (p := pod_problem(pod, nodes, hints, sample.accelerator.resource_name))), None)
    if found is None and not live and (warning := hints.warnings.get(metadata.get("uid", ""))):
        found = problem("PodRejected", f"Job {metadata['name']} gets no pod: {warning}", stalled=True)
    line = next((hints.progress[uid] for pod in live or pods[-1:] if (uid := pod["metadata"].get("uid", "")) in hints.progress), None)
    if line is not None:
        eta = line.get("eta")
        progress = Progress(
            stage=sample.stage,
            percent=max(0, min(100, int(line.get("percent", 0) or 0))),
            message=str(line.get("message", ""))[:1024],
            eta=_eta(int(eta)) if isinstance(eta, int | float) else None,
        )
    else:
        progress = Progress(
            stage=sample.stage, percent=0, message="running" if started else (found.message[:1024] if found else "starting")
        )
    state = record if started else record.model_copy(update={"state": "Pending"})
    if (found is None or not found.stalled) and (before := _still_refused(recorded, state)) is not None:
        found = before
    if found is not None:
        state = state.model_copy(update={"reason": found.reason, "message": found.message[:4096]})
    return StageView(state, problem=found, progress=progress)


def _still_refused(recorded: Stage | None, now: Stage) -> Problem | None:
    """A cheap stage that looks again whether a refusal still holds goes on showing it, so that Ready does not flap."""
    if recorded is None or recorded.reason is None or (recorded.attempts, recorded.input) != (now.attempts, now.input):
        return None
    return Problem(recorded.reason, recorded.message or "", stalled=True) if needs_person(recorded.reason) else None


def _eta(seconds: int) -> str:
    """Rounded, so that the status does not change every second."""
    if seconds < 60:
        return f"{max(5, -(-seconds // 5) * 5)}s"
    return f"{-(-seconds // 60)}m" if seconds < 5400 else f"{seconds / 3600:.1f}h"


def _without_job(
    make: Callable[[int], JobInput], recorded: Stage | None, made_from: str, config: Config, now: datetime, hold: Problem | None
) -> StageView:
    name = make(0).stage
    if recorded is not None and recorded.state == "Failed":
        return _after_failure(make, recorded, made_from, config, now, hold)
    # Nothing runs, or a Job that ran was deleted by somebody: start.
    attempt = max(1, recorded.attempts if recorded else 1)
    waiting = Stage(name=name, state="Pending", attempts=attempt - 1, gpu_seconds=recorded.gpu_seconds if recorded else None)
    return _start(make, waiting, attempt, made_from, config, hold)


def _start(make: Callable[[int], JobInput], record: Stage, attempt: int, made_from: str, config: Config, hold: Problem | None) -> StageView:
    if hold is not None:
        return StageView(record, problem=hold)
    job = Apply(job_object(make(attempt), attempt, config, made_from), create_only=True)
    started = record.model_copy(update={"state": "Pending", "attempts": attempt, "input": made_from})
    return StageView(
        started, apply=(job,), problem=_still_refused(started, started), progress=Progress(stage=record.name, percent=0, message="starting")
    )


def _after_failure(
    make: Callable[[int], JobInput], record: Stage, made_from: str, config: Config, now: datetime, hold: Problem | None
) -> StageView:
    sample = make(0)
    reason, message = record.reason or "InternalError", record.message or ""
    again = Stage(name=record.name, state="Pending", attempts=record.attempts, gpu_seconds=record.gpu_seconds)
    if record.input is not None and record.input != made_from:
        return _start(make, again, record.attempts + 1, made_from, config, hold)  # what it was made from has changed
    retry = retry_of(reason)
    if retry == "never" or (retry == "counted" and record.attempts > sample.settings.retries):
        tried = f" (after {record.attempts} attempts)" if record.attempts > 1 else ""
        return StageView(record, problem=Problem(reason, f"{sample.stage} failed{tried}: {message}", stalled=True))
    if hold is not None:
        return StageView(record, problem=hold)  # what is known of the last attempt stays in view until there is another
    finished = parse_time(record.finished_at) or now
    due = finished + timedelta(seconds=_delay(retry, record.attempts))
    if now >= due:
        if retry == "backoff":
            again = again.model_copy(update={"reason": reason, "message": message})
        return _start(make, again, record.attempts + 1, made_from, config, hold)
    said = f"{message.rstrip('. ')}. The next attempt is at {timestamp(due)}."
    if needs_person(reason):
        # A cheap stage that waits for a person stays visible as failed, though it looks again by itself.
        waiting = Problem(reason, f"{sample.stage} failed: {said}", stalled=True)
    else:
        waiting = Problem("Retrying", f"{sample.stage} failed: {reason}: {said}")
    return StageView(record, problem=waiting, requeue_after=(due - now).total_seconds() + 0.5)
