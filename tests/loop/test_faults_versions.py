"""Other versions of the CRDs and of the operator: what is stored stays readable, what is settled stays as it is."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.controlplane import ControlPlane
from tests.loop.conftest import CONTROLLERS
from tests.support.api import Api, Document
from tests.support.audit import Audit
from tests.support.kubelet_standin import Failure, KubeletStandIn
from tests.support.looking import ROOTS, identities, ready, things
from tests.support.operator_process import OperatorProcess, crd_directory
from tests.support.samples import engine, service, with_condition
from tests.support.waiting import eventually, nothing_for

Start = Callable[..., OperatorProcess]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.mark.parametrize("image", ["trtllm-operator/tools:v0", "example.test/mirror/tools:v999"], ids=["downgrade", "upgrade"])
def test_another_version_of_the_operator_leaves_what_is_settled_alone(
    api: Api, namespace: str, start_operator: Start, audit: Audit, image: str
) -> None:
    """Fault 42. O11: no write to a child, no pod restarted, and no failed build tried again on a GPU. Versions of the operator differ here as
    they do in a cluster for what they make: by the tools image, which each brings along.
    """
    with KubeletStandIn(api, namespace) as kubelet:
        operator = start_operator()
        api.create(engine("tiny", namespace))
        api.create(service("chat", namespace))
        ready(api, namespace, "LLMService", "chat")
        kubelet.failures["build"] = Failure("UnsupportedArchitecture", "not this one", times=9)
        api.create(engine("failed", namespace, build={"maxBatchSize": 3}))
        eventually(lambda: with_condition(api.find("LLMEngine", "failed", namespace), "Stalled"), what="failed", seconds=60)
        kubelet.failures["resolve"] = Failure("ModelAccessDenied", "gated", times=9)
        api.create(engine("refused", namespace, source={"huggingFace": {"repo": "tiny/gated"}}))
        eventually(lambda: with_condition(api.find("LLMEngine", "refused", namespace), "Stalled"), what="refused", seconds=60)
        eventually(operator.idle, what="idle")
        before, pods = identities(api, namespace), {pod["metadata"]["uid"] for pod in api.list("Pod", namespace)}
        statuses = {obj["metadata"]["uid"]: obj["status"] for obj in things(api, namespace, ROOTS)}
        operator.stop()
        mark = audit.mark()
        other = start_operator(TOOLS_IMAGE=image)
        passes = "trtllm_operator_reconcile_seconds_count{kind=LLMEngine}"
        eventually(lambda: other.metrics().get(passes, 0) >= 3 and other.idle(), what="each was looked at")
        nothing_for(3, lambda: audit.by_operator(mark), what="no write")
        assert identities(api, namespace) == before
        assert {pod["metadata"]["uid"] for pod in api.list("Pod", namespace)} == pods
        assert {obj["metadata"]["uid"]: obj["status"] for obj in things(api, namespace, ROOTS)} == statuses


def _crds() -> dict[str, Document]:
    found = [yaml.safe_load(path.read_text()) for path in sorted(crd_directory().glob("*.yaml"))]
    return {crd["spec"]["names"]["kind"]: crd for crd in found}


def _older() -> dict[str, Document]:
    """Our CRDs as an older version may have been: with a field that there is no more, a value that is no more allowed, and without one that is
    required now.
    """
    crds = copy.deepcopy(_crds())
    for kind in ("LLMEngine", "LLMService"):
        schema = crds[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        for part in ("spec", "status"):
            schema[part]["properties"]["legacy"] = {"type": "string"}
    spec = crds["LLMEngine"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["precision"]["properties"]["dtype"]["enum"].append("float7")
    spec["runtime"]["required"].remove("version")
    del spec["runtime"]["required"]
    return crds


def _replace(api: Api, crds: dict[str, Document]) -> None:
    """As `kubectl replace`."""
    for crd in crds.values():
        path = f"{CRDS}/{crd['metadata']['name']}"
        version = api.request("GET", path)["metadata"]["resourceVersion"]
        api.request("PUT", path, {**crd, "metadata": {**crd["metadata"], "resourceVersion": version}})


class _Plane:
    """A control plane whose CRDs a test may break."""

    def __init__(self, plane: ControlPlane, api: Api, audit: Audit) -> None:
        self.plane, self.api, self.audit = plane, api, audit


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Plane]:
    audit = Audit(tmp_path_factory.mktemp("own-audit"))
    with ControlPlane(controllers=CONTROLLERS, apiserver_arguments=audit.apiserver_arguments) as plane:
        client = Api(plane.url, plane.token, plane.ca)
        try:
            yield _Plane(plane, client, audit)
        finally:
            client.close()


def _all(api: Api, engines: Iterable[str], reason: str | None = None) -> None:
    eventually(
        lambda: all(with_condition(api.find("LLMEngine", name), "Ready", reason) for name in engines),
        what=f"{engines}: {reason or 'looked at'}",
    )


def test_the_crds_are_upgraded_under_stored_objects_and_then_removed(own: _Plane, tmp_path: Path) -> None:
    """Faults 41 and 45. A field removed, a value no more allowed, a field newly required, by `kubectl replace`: all is readable, what was
    settled keeps its status and is not touched, the rest is told what is wrong. (There is one version of the API, so nothing is converted.)
    Then the CRDs are removed, and with them the resources: the operator deletes nothing, a volume of the user stays, and it goes on when they
    are back.
    """
    api, namespace = own.api, "default"
    older = tmp_path / "older"
    older.mkdir()
    for kind, crd in _older().items():
        (older / f"{kind}.yaml").write_text(yaml.safe_dump(crd))
    api.install_crds(older)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "mine", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    api.create(claim)
    operator = OperatorProcess(own.plane.kubeconfig, tmp_path, WATCH_NAMESPACE=namespace)
    try:
        with KubeletStandIn(api, namespace) as kubelet:
            operator.start()
            api.create(engine("tiny", namespace, storage={"claimName": "mine"}))
            api.create(service("chat", namespace))
            ready(api, namespace, "LLMService", "chat")
            api.create(engine("fielded", namespace, build={"maxBatchSize": 3}, legacy="x"))
            api.create(engine("valued", namespace, precision={"dtype": "float7"}))
            api.create(engine("lacking", namespace, runtime={"backend": "auto"}))
            _all(api, ("fielded", "valued", "lacking"))
            eventually(operator.idle, what="idle", seconds=60)
            operator.stop()
            before, settled = (
                identities(api, namespace),
                {n: api.get(k, n, namespace) for k, n in (("LLMEngine", "tiny"), ("LLMService", "chat"))},
            )
            _replace(api, _crds())
            mark = own.audit.mark()
            operator.start()
            ready(api, namespace, "LLMEngine", "fielded")
            assert "legacy" not in api.get("LLMEngine", "fielded", namespace)["spec"]
            _all(api, ("valued", "lacking"), "InvalidSpec")
            eventually(operator.idle, what="idle")
            for kind, name in (("LLMEngine", "tiny"), ("LLMService", "chat")):
                assert api.get(kind, name, namespace)["status"] == settled[name]["status"], "status kept"
            assert before.items() <= identities(api, namespace).items()
            assert not [w for w in own.audit.by_operator(mark) if w.name in ("tiny", "chat")]
            api.patch("LLMEngine", "valued", {"spec": {"precision": {"dtype": "auto"}}}, namespace)
            api.patch("LLMEngine", "lacking", {"spec": {"runtime": {"version": "1.2.1"}}}, namespace)
            for name in ("valued", "lacking"):
                ready(api, namespace, "LLMEngine", name)
            assert kubelet.ended["build"] == 2, "the two that were mended ask for what tiny has"

            eventually(operator.idle, what="idle")
            mark = own.audit.mark()
            for crd in _crds().values():
                api.request("DELETE", f"{CRDS}/{crd['metadata']['name']}")
            eventually(lambda: "install the CRDs" in operator.log(), what="says so", seconds=60)
            nothing_for(5, lambda: [w for w in own.audit.by_operator(mark) if w.verb == "delete"], what="no deletion by the operator")
            assert not [w for w in own.audit.by_operator(mark) if w.code == 201 and w.resource != "events"], "nothing is made anew"
            assert api.find("PersistentVolumeClaim", "mine", namespace)
            assert operator.probe("healthz") == 200
            api.install_crds(crd_directory())
            api.create(engine("anew", namespace, build={"maxBatchSize": 5}))
            ready(api, namespace, "LLMEngine", "anew")
        assert "Traceback" not in operator.log()
    finally:
        operator.stop(signal.SIGKILL)
