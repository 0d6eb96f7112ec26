"""The decision for an LLMEngineBuild: claims, then fetch, build and publish, one after the other, until the artifact is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from trtllm_operator.api.common import Artifact, Progress, Stage, StageName
from trtllm_operator.api.llmengine import LLMEngineSpec
from trtllm_operator.api.llmenginebuild import LLMEngineBuildSpec, LLMEngineBuildStatus
from trtllm_operator.decide import conditions, stages
from trtllm_operator.decide.conditions import Condition
from trtllm_operator.decide.decision import Apply, Decision, Delete
from trtllm_operator.decide.input import BuildInput, Obj
from trtllm_operator.decide.podstate import Problem, problem
from trtllm_operator.desired import claims, enginebuild, names
from trtllm_operator.desired.jobs import BuildJobs, JobInput
from trtllm_operator.desired.match import quantity
from trtllm_operator.desired.owners import owner_reference, owner_uids

_REASON: dict[StageName, str] = {"fetch": "Fetching", "build": "Building", "publish": "Publishing"}


def decide(inp: BuildInput) -> Decision:
    """One pass over one build."""
    metadata = inp.build["metadata"]
    if "deletionTimestamp" in metadata:
        return Decision()  # the garbage collector takes what it owns
    if not metadata.get("ownerReferences"):
        # Its last owner has left it. What still serves it owns it, so nothing in use goes.
        gone = Delete(
            inp.build["apiVersion"],
            inp.build["kind"],
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            metadata["resourceVersion"],
        )
        return Decision(delete=(gone,))
    old = read_status(inp.build)
    try:
        spec = LLMEngineBuildSpec.model_validate(inp.build["spec"])
    except ValidationError as error:
        wrong = f"spec.{first_error(error)}. Delete this LLMEngineBuild: the operator makes another."
        return _finish(inp, old, old.stages, old.artifact, None, conditions.stalled("InvalidSpec", wrong))
    return _Pass(inp, spec, old).run()


def read_status(obj: Obj) -> LLMEngineBuildStatus:
    """The recorded status; an unreadable one (edited by hand, other version) counts as none and is made again."""
    try:
        return LLMEngineBuildStatus.model_validate(obj.get("status") or {})
    except ValidationError:
        return LLMEngineBuildStatus()


def first_error(error: ValidationError) -> str:
    """The first complaint of pydantic, with the field's path."""
    item = error.errors()[0]
    return f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"


def sponsor(engines: tuple[Obj, ...]) -> tuple[LLMEngineSpec, bool] | None:
    """The spec that lends placement, storage and token, and whether all engines are suspended. None: no engine wants the build."""
    readable = []
    for engine in engines:
        try:
            readable.append(LLMEngineSpec.model_validate(engine["spec"]))
        except ValidationError:
            continue
    if not readable:
        return None
    return next(((spec, False) for spec in readable if not spec.suspend), (readable[0], True))


class _Pass:
    """One pass. Collects what is to be applied while it walks through the stages."""

    def __init__(self, inp: BuildInput, spec: LLMEngineBuildSpec, old: LLMEngineBuildStatus) -> None:
        self.inp, self.spec, self.old = inp, spec, old
        self.namespace, self.name = inp.build["metadata"]["namespace"], inp.build["metadata"]["name"]
        self.key = enginebuild.key(spec)
        self.checkpoint = names.checkpoint_name(spec.source.dump())
        self.is_engine = spec.recipe == "TensorRTEngine"
        self.apply: list[Apply] = []
        self.delete: list[Delete] = []
        self.records: list[Stage] = []

    def run(self) -> Decision:
        lender = sponsor(self.inp.engines)
        if lender is None:
            if self.old.artifact is not None:
                return self._settled(self.old.artifact, self.old.stages)
            waiting = problem("EngineNotFound", "the build is not finished and no LLMEngine asks for it any more")
            return _finish(self.inp, self.old, self.old.stages, None, None, conditions.stalled(waiting.reason, waiting.message))
        engine, suspended = lender
        hold = self._claims(engine)
        if suspended:
            hold = problem("Suspended", "every LLMEngine that asks for this build is suspended")
        jobs = BuildJobs(
            self.namespace, self.name, self.key, self.spec, engine, owner_reference(self.inp.build, controller=True), self.checkpoint
        )
        if self.old.artifact is not None and self._complete():
            return self._settled(self.old.artifact, self.old.stages)
        fetching = next((job for job in self.inp.fetching if _works(job)), None)
        if fetching is not None and hold is None:
            hold = problem("WaitingForBuild", f"Job {fetching['metadata']['name']} is fetching the same checkpoint")
        steps: list[tuple[StageName, Callable[[int], JobInput] | None]] = [
            ("fetch", lambda _: jobs.fetch()),
            ("build", jobs.build_attempt if self.is_engine else None),
            ("publish", lambda _: jobs.publish()),
        ]
        facts: Mapping[str, Any] = {}
        for stage, make in steps:
            view = self._stage(stage, make, hold)
            self.records.append(view.record)
            self.apply += view.apply
            self.delete += view.delete
            if not view.done:
                return self._under_way(stage, view)
            facts, hold = view.facts, hold if suspended else None
        return self._published(engine, facts)

    def _claims(self, engine: LLMEngineSpec) -> Problem | None:
        """Claims of the checkpoint and the engine. A claim that is being deleted can't be used and not be made again yet."""
        if engine.storage.claim_name:
            return None
        uid = self.inp.build["metadata"]["uid"]
        label = {names.CHECKPOINT: names.label_value(self.checkpoint)}
        size = claims.checkpoint_size(self.spec.model, engine.storage)
        shared = owner_reference(self.inp.build, controller=False)
        wanted = [
            Apply(claims.claim(self.namespace, self.checkpoint, size, engine.storage, label, [shared]), names.owner_manager(uid)),
        ]
        if self.is_engine:
            size = claims.engine_size(self.spec.model, engine.storage)
            own = owner_reference(self.inp.build, controller=True)
            wanted.append(
                Apply(claims.claim(self.namespace, self.name, size, engine.storage, {names.BUILD: names.label_value(self.name)}, [own]))
            )
        for claim in wanted:
            observed = self.inp.claims.get(claim.obj["metadata"]["name"])
            if observed is not None and ("deletionTimestamp" in observed["metadata"] or self._of_a_predecessor(observed)):
                return problem(
                    "WaitingForVolume",
                    f"claim {observed['metadata']['name']} is being deleted; it is made again when it is gone. Pods that use it keep it: "
                    "scale an LLMService that serves from it to 0",
                )
            self.apply.append(Apply({**claim.obj, "spec": _keep_immutable(claim.obj["spec"], observed)}, claim.manager))
        return None

    def _of_a_predecessor(self, claim: Obj) -> bool:
        """Does it belong to a deleted build of this name, and not yet to this one? Then the garbage collector takes it in a moment, with what is on it."""
        owners = claim["metadata"].get("ownerReferences", ())
        uid = self.inp.build["metadata"]["uid"]
        earlier = any(owner.get("kind") == "LLMEngineBuild" and owner.get("name") == self.name and owner["uid"] != uid for owner in owners)
        return earlier and uid not in owner_uids(claim)

    def _made_at(self, stage: StageName) -> str | None:
        """When the claim that a stage writes to was made. What was recorded before belongs to a claim that is gone."""
        claim = self.inp.claims.get(self.checkpoint if stage == "fetch" or not self.is_engine else self.name)
        return str(claim["metadata"].get("creationTimestamp")) if claim else None

    def _complete(self) -> bool:
        """Does the artifact's claim still exist, the same one that it was written to?"""
        artifact = self.old.artifact
        if artifact is None or artifact.claim_name not in (self.name, self.checkpoint):
            return artifact is not None  # a claim of the user's, which the operator does not watch
        claim = self.inp.claims.get(artifact.claim_name)
        finished = next((record.finished_at for record in self.old.stages if record.name == "publish"), None)
        return claim is not None and (finished is None or str(claim["metadata"].get("creationTimestamp")) <= finished)

    def _stage(self, stage: StageName, make: Callable[[int], JobInput] | None, hold: Problem | None) -> stages.StageView:
        if make is None:
            return stages.skipped(stage)
        since = self._made_at(stage) or ""
        recorded = next((record for record in self.old.stages if record.name == stage), None)
        jobs = list(self.inp.jobs)
        stale = [job for job in stages.jobs_of(jobs, make) if str(job["metadata"].get("creationTimestamp", "")) < since]
        if recorded is not None and recorded.started_at is not None and recorded.started_at < since:
            recorded = None
        if stale:
            # Results on a claim that is gone. Their names are taken, so count on from them.
            jobs = [job for job in jobs if job not in stale]
            taken = stages.attempt_of(stale[-1])
            if recorded is None or recorded.attempts <= taken:
                recorded = Stage(name=stage, state="Pending", attempts=taken + 1)
            if at_work := [job for job in stale if not stages.is_over(job)]:
                return stages.removed(recorded, at_work)
        return stages.run(
            make, jobs, self.inp.pods, recorded, self.inp.config, self.inp.now, hints=self.inp.hints, nodes=self.inp.nodes, hold=hold
        )

    def _under_way(self, stage: StageName, view: stages.StageView) -> Decision:
        found = view.problem
        reason = _REASON[stage]
        later = [record for record in self.old.stages if record.name not in {r.name for r in self.records} and record.state != "Succeeded"]
        if found is None:
            shown = conditions.progressing(reason, f"{stage}: {view.progress.message if view.progress else 'under way'}")
        elif found.stalled:
            shown = conditions.stalled(found.reason, found.message)
        elif found.reason == "Suspended":
            shown = conditions.idle(found.reason, found.message)
        else:
            shown = conditions.progressing(found.reason, found.message)
        return _finish(self.inp, self.old, [*self.records, *later], None, view.progress, shown, self.apply, self.delete, view.requeue_after)

    def _published(self, engine: LLMEngineSpec, facts: Mapping[str, Any]) -> Decision:
        if not facts:
            if self.old.artifact is not None:
                return self._settled(self.old.artifact, self.records)
            # Recorded as done, but what it found is lost with its Job. Publishing again is cheap: it finds the manifest.
            again = [record for record in self.records if record.name != "publish"]
            return _finish(
                self.inp,
                self.old,
                again,
                None,
                None,
                conditions.progressing("Publishing", "publish: reading the manifest again"),
                self.apply,
            )
        said = {
            "path": facts.get("path", ""),
            "tokenizerPath": facts.get("tokenizerPath"),
            "bytes": facts.get("bytes", 0),
            "files": facts.get("files", 0),
            "digest": facts.get("digest", ""),
            "maxSeqLen": facts.get("maxSeqLen"),
            "maxBatchSize": facts.get("maxBatchSize"),
        }
        try:
            artifact = Artifact.model_validate(
                {
                    **said,
                    "kind": self.spec.recipe,
                    "key": self.key,
                    "build": self.name,
                    "claimName": engine.storage.claim_name or (self.name if self.is_engine else self.checkpoint),
                    "runtimeVersion": self.spec.runtime_version,
                    "runtimeImage": self.spec.runtime_image,
                    "computeCapability": self.spec.compute_capability,
                    "tensorParallel": self.spec.parallelism.tensor,
                    "pipelineParallel": self.spec.parallelism.pipeline,
                }
            )
        except ValidationError as error:
            wrong = problem("InternalError", f"the report of stage publish is not understood: {first_error(error)}")
            failed = {"state": "Failed", "reason": wrong.reason, "message": wrong.message[:4096]}
            records = [*self.records[:-1], self.records[-1].model_copy(update=failed)]
            return _finish(self.inp, self.old, records, None, None, conditions.stalled(wrong.reason, wrong.message), self.apply)
        return self._settled(artifact, self.records)

    def _settled(self, artifact: Artifact, records: list[Stage]) -> Decision:
        message = f"{artifact.kind} of {artifact.bytes} bytes in {artifact.files} files on claim {artifact.claim_name}, {artifact.digest}"
        return _finish(self.inp, self.old, records, artifact, None, conditions.ready(message), self.apply)


def _works(job: Obj) -> bool:
    """Has the Job a running pod? One that waits, perhaps for a node that never comes, must not keep others from fetching."""
    status = job.get("status", {})
    over = any(c.get("type") in ("Complete", "Failed") and c.get("status") == "True" for c in status.get("conditions", ()))
    return not over and int(status.get("ready") or 0) > 0


def _keep_immutable(desired: Mapping[str, Any], observed: Obj | None) -> dict[str, Any]:
    """A claim's class and modes can't change, and its size can't shrink: what is there wins, so that an apply is never refused."""
    if observed is None:
        return dict(desired)
    have = observed.get("spec", {})
    size_have, size_want = have.get("resources", {}).get("requests", {}).get("storage", "0"), desired["resources"]["requests"]["storage"]
    size = size_want if quantity(size_want) > quantity(size_have) else size_have
    kept = {"accessModes": have.get("accessModes", desired["accessModes"]), "resources": {"requests": {"storage": size}}}
    if "storageClassName" in desired and "storageClassName" in have:
        kept["storageClassName"] = have["storageClassName"]
    return kept


def _finish(
    inp: BuildInput,
    old: LLMEngineBuildStatus,
    records: list[Stage],
    artifact: Artifact | None,
    progress: Progress | None,
    shown: tuple[Condition, ...],
    apply: list[Apply] | None = None,
    delete: list[Delete] | None = None,
    requeue_after: float | None = None,
) -> Decision:
    generation = int(inp.build["metadata"].get("generation", 0))
    observed = [c.dump() for c in old.conditions]
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": conditions.finish(shown, observed, generation, inp.now),
        "stages": [record.dump() for record in records],
    }
    if progress is not None:
        status["progress"] = progress.dump()
    if artifact is not None:
        status["artifact"] = artifact.dump()
    return Decision(
        status=status,
        apply=tuple(apply or ()),
        delete=tuple(delete or ()),
        events=conditions.transitions(shown, observed),
        requeue_after=requeue_after,
    )
