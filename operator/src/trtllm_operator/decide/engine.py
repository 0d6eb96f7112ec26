"""The decision for an LLMEngine: resolve, plan, ask for a build, verify what it made, and say what there is."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from trtllm_operator.api.common import Artifact, Progress, Stage
from trtllm_operator.api.llmengine import LLMEngineSpec, LLMEngineStatus, ModelFacts, ResolvedSource, Runtime, Source, Verification
from trtllm_operator.decide import conditions, plan, stages
from trtllm_operator.decide.build import first_error, read_status
from trtllm_operator.decide.conditions import Condition
from trtllm_operator.decide.decision import Apply, Decision, Delete, Entry
from trtllm_operator.decide.input import EngineInput, Obj
from trtllm_operator.decide.podstate import Problem, problem
from trtllm_operator.desired import enginebuild, names
from trtllm_operator.desired.jobs import BuildJobs, JobInput, input_hash, resolve_input
from trtllm_operator.desired.owners import owner_reference, owner_uids, without


def decide(inp: EngineInput) -> Decision:
    """One pass over one engine."""
    if "deletionTimestamp" in inp.engine["metadata"]:
        return Decision()  # the garbage collector takes what only it owned
    try:
        old = LLMEngineStatus.model_validate(inp.engine.get("status") or {})
    except ValidationError:
        old = LLMEngineStatus()
    try:
        spec = LLMEngineSpec.model_validate(inp.engine["spec"])
    except ValidationError as error:
        unread = LLMEngineSpec(source=Source(), runtime=Runtime(version="0.0.0"))
        return _Pass(inp, unread, old).refuse("InvalidSpec", problem("InvalidSpec", f"spec.{first_error(error)}").message)
    return _Pass(inp, spec, old).run()


class _Pass:
    """One pass. Keeps what was known until something newer is known: a refused spec never takes away what is served."""

    def __init__(self, inp: EngineInput, spec: LLMEngineSpec, old: LLMEngineStatus) -> None:
        self.inp, self.spec, self.old = inp, spec, old
        metadata = inp.engine["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.generation = int(metadata.get("generation", 0))
        self.apply: list[Apply] = []
        self.leave: list[Entry] = []
        self.delete: list[Delete] = []
        self.stages: dict[str, Stage] = {}
        self.status: dict[str, Any] = {}
        self.extra: list[Condition] = []
        self.requeue_after: float | None = None
        self.resolved, self.artifact, self.verification = old.resolved, old.artifact, old.verification

    # The chain.

    def run(self) -> Decision:
        try:
            plan.early(self.spec)
            return self._resolve()
        except plan.Refused as refused:
            return self.refuse(refused.reason, str(refused))

    def refuse(self, reason: str, message: str) -> Decision:
        """A person must change the spec. What is served and built stays as it is."""
        for stage in self.old.stages:
            self.stages.setdefault(stage.name, stage)
        return self._finish(conditions.stalled(reason, message), None)

    def _resolve(self) -> Decision:
        wanted = enginebuild.source_hash(self.spec)
        if self.resolved is not None and self.resolved.source_hash == wanted:
            recorded = next((s for s in self.old.stages if s.name == "resolve"), None)
            self.stages["resolve"] = recorded or Stage(name="resolve", state="Succeeded")
            return self._plan(self.resolved)
        job = resolve_input(self.inp.engine, self.spec, owner_reference(self.inp.engine, controller=True), wanted)
        recorded = next((s for s in self.old.stages if s.name == "resolve" and s.state != "Succeeded"), None)
        inputs = {seen["metadata"].get("annotations", {}).get(names.INPUT) for seen in stages.jobs_of(self.inp.jobs, lambda _: job)}
        if recorded is not None and recorded.input not in {*inputs, input_hash(job, self.inp.config)}:
            recorded = None  # it speaks of another source
        view = self._run("resolve", job, recorded)
        if not view.done:
            return self._under_way("Resolving", view.problem, view.progress, f"looking up {self._source_text()}")
        facts = {key: value for key, value in view.facts.items() if key != "revision"}
        try:
            self.resolved = ResolvedSource(
                source_hash=wanted, revision=str(view.facts.get("revision", "")), model=ModelFacts.model_validate(facts)
            )
        except ValidationError as error:
            raise plan.Refused(
                "InvalidModel",
                f"{self._source_text()}: the model's configuration is not understood: {first_error(error)}. "
                "Correct config.json, or use another model",
            ) from error
        return self._plan(self.resolved)

    def _plan(self, resolved: ResolvedSource) -> Decision:
        planned = plan.make(self.spec, resolved, self.inp.nodes, self.inp.config)
        self.status |= {"key": planned.key, "build": planned.name, "revision": resolved.revision, "plan": planned.plan.dump()}
        observed = self.inp.builds.get(planned.name)
        self._let_claims_go(planned, observed)
        if self.spec.suspend and observed is None:
            return self._under_way("Building", problem("Suspended", "spec.suspend is true"), None, "")
        if observed is not None and "deletionTimestamp" in observed["metadata"]:
            return self._under_way(
                "Building",
                problem("WaitingForBuild", f"LLMEngineBuild {planned.name} is being deleted; it is made again when it is gone"),
                None,
                "",
            )
        owner = owner_reference(self.inp.engine, controller=False)
        self.apply.append(
            Apply(enginebuild.build_object(self.namespace, planned.name, planned.spec.dump(), [owner]), names.owner_manager(self.uid))
        )
        build_status = read_status(observed) if observed is not None else None
        for stage in build_status.stages if build_status else ():
            self.stages[stage.name] = stage
        if build_status is None or build_status.artifact is None:
            return self._building(planned, build_status.conditions if build_status else [], build_status.progress if build_status else None)
        return self._verify(planned, build_status.artifact)

    def _let_claims_go(self, planned: plan.Planned, build: Obj | None) -> None:
        """Remove Jobs that tried what an earlier build of this name had made: a claim that is deleted stays while any pod names it, ended or not."""
        claims = {planned.name, planned.checkpoint}
        leaving = build is None or "deletionTimestamp" in build["metadata"]
        since = "" if build is None else str(build["metadata"].get("creationTimestamp", ""))
        for job in self.inp.jobs:
            metadata, volumes = job["metadata"], job["spec"]["template"]["spec"].get("volumes", ())
            named = {volume.get("persistentVolumeClaim", {}).get("claimName") for volume in volumes}
            earlier = leaving or str(metadata.get("creationTimestamp", "")) < since
            if (
                earlier
                and metadata.get("labels", {}).get(names.STAGE) == "verify"
                and named & claims
                and "deletionTimestamp" not in metadata
            ):
                self.delete.append(Delete("batch/v1", "Job", metadata["namespace"], metadata["name"], metadata["uid"]))

    def _building(self, planned: plan.Planned, observed: Any, progress: Progress | None) -> Decision:
        now = next((c for c in observed if c.type == "Ready"), None)
        if now is None:
            return self._under_way("Building", None, progress, f"LLMEngineBuild {planned.name} is starting")
        is_stalled = any(c.type == "Stalled" and c.status == "True" for c in observed)
        if is_stalled or now.status == "False":
            return self._under_way("Building", Problem(now.reason, now.message, stalled=is_stalled), progress, "")
        return self._finish(conditions.progressing(now.reason, now.message), progress)

    def _verify(self, planned: plan.Planned, artifact: Artifact) -> Decision:
        if not self.spec.verify.smoke:
            self.stages["verify"] = Stage(name="verify", state="Skipped")
            self.verification = Verification(key=planned.key, state="Skipped")
            return self._ready(artifact)
        # By digest, not by key alone: what was built again from equal inputs is another artifact until it is verified, too.
        same = self.artifact is not None and self.artifact.digest == artifact.digest
        if same and self.verification is not None and self.verification.key == planned.key and self.verification.state == "Succeeded":
            recorded = next((s for s in self.old.stages if s.name == "verify"), None)
            self.stages["verify"] = recorded or Stage(name="verify", state="Succeeded")
            return self._ready(artifact)
        jobs = BuildJobs(
            self.namespace,
            planned.name,
            planned.key,
            planned.spec,
            self.spec,
            owner_reference(self.inp.engine, controller=True),
            planned.checkpoint,
        )
        job = jobs.verify(self.name, owner_reference(self.inp.engine, controller=True), artifact.digest)
        recorded = next((s for s in self.old.stages if s.name == "verify" and s.state not in ("Succeeded", "Skipped")), None)
        if recorded is not None and self.old.key != planned.key:
            recorded = None
        view = self._run("verify", job, recorded)
        if not view.done:
            if view.record.state == "Failed":
                self.verification = Verification(key=planned.key, state="Failed", finished_at=view.record.finished_at)
            return self._under_way("Verifying", view.problem, view.progress, "trying the artifact on a GPU")
        self.verification = Verification(
            key=planned.key, state="Succeeded", output=str(view.facts.get("output", ""))[:1024] or None, finished_at=view.record.finished_at
        )
        return self._ready(artifact)

    def _ready(self, artifact: Artifact) -> Decision:
        self.artifact = artifact
        message = (
            f"{artifact.kind} {artifact.build} is built and verified"
            if self.spec.verify.smoke
            else f"{artifact.kind} {artifact.build} is built"
        )
        return self._finish(conditions.ready(message), None)

    # Small parts.

    def _source_text(self) -> str:
        hub, pvc = self.spec.source.hugging_face, self.spec.source.pvc
        if hub is not None:
            return f"{hub.repo}@{hub.revision}" + (f" at {hub.endpoint}" if hub.endpoint else "")
        return f"{pvc.path or '/'} on claim {pvc.claim_name}" if pvc is not None else "no source"

    def _run(self, name: str, job: JobInput, recorded: Stage | None) -> stages.StageView:
        """Decide one of the engine's own stages, and note what it needs and says."""
        inp = self.inp
        hold = problem("Suspended", "spec.suspend is true") if self.spec.suspend else None
        view = stages.run(lambda _: job, inp.jobs, inp.pods, recorded, inp.config, inp.now, hints=inp.hints, nodes=inp.nodes, hold=hold)
        self.stages[name] = view.record
        self.apply += view.apply
        self.delete += view.delete
        self.requeue_after = view.requeue_after
        return view

    def _under_way(self, reason: str, found: Problem | None, progress: Progress | None, message: str) -> Decision:
        if found is None:
            return self._finish(
                conditions.progressing(
                    reason, progress.message if progress and progress.message not in ("", "starting", "running") else message
                ),
                progress,
            )
        if found.stalled:
            return self._finish(conditions.stalled(found.reason, found.message), progress)
        if found.reason == "Suspended":
            return self._finish(conditions.idle(found.reason, found.message), progress)
        return self._finish(conditions.progressing(found.reason, found.message), progress)

    def _release(self) -> None:
        """Leave builds that are no longer wanted. The last owner to leave deletes; others only take their entry away."""
        keep = {
            self.status.get("build"),
            self.artifact.build if self.artifact else None,
            self.old.build if "build" not in self.status else None,
        }
        for name, build in self.inp.builds.items():
            owners = owner_uids(build)
            if self.uid not in owners or name in keep or "deletionTimestamp" in build["metadata"]:
                continue
            if without(owners, self.uid):
                self.leave.append(Entry(build, owner_reference(self.inp.engine, controller=False)))
            else:
                self.delete.append(_deletion(build))

    def _own_conditions(self) -> list[Condition]:
        def state(kind: str, name: str, *stages: str) -> Condition:
            """Of several stages the first that is not done speaks."""
            records = [self.stages.get(stage) for stage in stages]
            record = next((r for r in records if r is None or r.state not in ("Succeeded", "Skipped")), records[-1])
            match record.state if record else None:
                case "Succeeded" | "Skipped":
                    return Condition(kind, "True", "Succeeded", f"{name} is done")
                case "Failed":
                    return Condition(
                        kind, "False", (record.reason if record else None) or "InternalError", (record.message if record else None) or ""
                    )
                case "Running":
                    return Condition(kind, "Unknown", "Progressing", f"{name} is under way")
                case _:
                    return Condition(kind, "Unknown", "Progressing", f"{name} has not started")

        return [
            state("SourceFetched", "fetch", "fetch"),
            state("Built", "the build", "build", "publish"),
            state("Verified", "verification", "verify"),
        ]

    def _finish(self, shown: tuple[Condition, ...], progress: Progress | None) -> Decision:
        if "build" not in self.status:  # refused or not yet resolved: the last known wish stays in view
            known = {
                "key": self.old.key,
                "build": self.old.build,
                "revision": self.old.revision,
                "plan": self.old.plan.dump() if self.old.plan else None,
            }
            self.status |= {key: value for key, value in known.items() if value is not None}
        self._release()
        observed = [c.dump() for c in self.old.conditions]
        every = (*shown, *self._own_conditions())
        order = ("resolve", "fetch", "build", "publish", "verify")
        self.status |= {
            "observedGeneration": self.generation,
            "conditions": conditions.finish(every, observed, self.generation, self.inp.now),
            "stages": [self.stages[name].dump() for name in order if name in self.stages],
        }
        for key, value in (
            ("resolved", self.resolved),
            ("artifact", self.artifact),
            ("verification", self.verification),
            ("progress", progress),
        ):
            if value is not None:
                self.status[key] = value.dump()
        return Decision(
            status=self.status,
            apply=tuple(self.apply),
            leave=tuple(self.leave),
            delete=tuple(self.delete),
            events=conditions.transitions(every, observed),
            requeue_after=self.requeue_after,
        )


def _deletion(obj: Obj) -> Delete:
    metadata = obj["metadata"]
    return Delete(obj["apiVersion"], obj["kind"], metadata["namespace"], metadata["name"], metadata["uid"], metadata["resourceVersion"])
