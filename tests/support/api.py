"""A plain client of a real API server for tests: one call, one request, documents in and out."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from tests.support.waiting import eventually
from trtllm_operator.kube import documents
from trtllm_operator.kube.resources import BY_KIND

Document = dict[str, Any]
_SECONDS = 30.0
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


class ApiRefusedError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, document: Any) -> None:
        self.status = status
        self.document = document
        message = document.get("message") if isinstance(document, dict) else document
        super().__init__(f"{status}: {message}")


class Api:
    """Requests by a bearer token. One connection for each thread."""

    def __init__(self, url: str, token: str, ca: Path) -> None:
        self._host = urlsplit(url).netloc
        self._token = token
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._local = threading.local()

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", accept: str = "*/*", **query: str
    ) -> Any:
        """One request. Raises ApiRefusedError; OSError where the server is away."""
        target = f"{path}?{urlencode(query)}" if query else path
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type, "Accept": accept, "User-Agent": "test"}
        for attempt in (1, 2):
            connection = self._connection()
            try:
                connection.request(method, target, body=data, headers=headers)
                answer = connection.getresponse()
                text = answer.read().decode()
                break
            except (http.client.HTTPException, OSError):
                self.close()  # an idle connection may have been closed meanwhile, so once more with a new one
                if attempt == 2:
                    raise
        try:
            document = documents.loads(text.encode())  # whatever tests put into resources
        except ValueError:
            document = text
        if answer.status >= 400:
            raise ApiRefusedError(answer.status, document)
        return document

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connection(self) -> http.client.HTTPSConnection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection(self._host, context=self._tls, timeout=_SECONDS)
            self._local.connection = connection
        return connection

    def get(self, kind: str, name: str, namespace: str = "default") -> Document:
        """Read one object."""
        found: Document = self.request("GET", BY_KIND[kind].path(namespace, name))
        return found

    def find(self, kind: str, name: str, namespace: str = "default") -> Document | None:
        """Read one object, or None."""
        try:
            return self.get(kind, name, namespace)
        except ApiRefusedError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str | None = None, **query: str) -> list[Document]:
        """All objects of a kind."""
        items: list[Document] = self.request("GET", BY_KIND[kind].path(namespace), **query)["items"]
        return items

    def create(self, obj: Document) -> Document:
        """POST."""
        made: Document = self.request("POST", BY_KIND[obj["kind"]].path(obj["metadata"].get("namespace", "default")), obj)
        return made

    def apply(self, obj: Document, manager: str = "test") -> Document:
        """Server-side apply as somebody else than the operator."""
        path = BY_KIND[obj["kind"]].path(obj["metadata"].get("namespace", "default"), obj["metadata"]["name"])
        made: Document = self.request("PATCH", path, obj, content_type=APPLY, fieldManager=manager, force="true")
        return made

    def patch(self, kind: str, name: str, change: Document, namespace: str = "default", subresource: str | None = None) -> Document:
        """Merge patch."""
        path = BY_KIND[kind].path(namespace, name, subresource)
        made: Document = self.request("PATCH", path, change, content_type=MERGE)
        return made

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """DELETE, in the background."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        self.request("DELETE", BY_KIND[kind].path(namespace, name), body)

    def namespace(self, name: str) -> str:
        """Make a namespace."""
        self.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def with_account(self, namespace: str) -> str:
        """Wait until a namespace has its default service account; needs the controller that makes it. Returns the namespace.

        Until then no pod is admitted, and the Job controller waits ever longer between its tries.
        """

        def there() -> bool:
            accounts = self.request("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts")["items"]
            return any(account["metadata"]["name"] == "default" for account in accounts)

        eventually(there, what=f"the service account of namespace {namespace}", seconds=60)
        return namespace

    def install_crds(self, directory: Path) -> None:
        """Apply every CRD of a directory and wait until they are served."""
        crds: list[Document] = [doc for path in sorted(directory.glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text()) if doc]
        if not crds:
            raise FileNotFoundError(f"no CRDs in {directory}; make them with `trtllm-operator crds`")
        base = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for crd in crds:
            self.request("PATCH", f"{base}/{crd['metadata']['name']}", crd, content_type=APPLY, fieldManager="test", force="true")
        names = [crd["metadata"]["name"] for crd in crds]
        eventually(lambda: all(_established(self.request("GET", f"{base}/{name}")) for name in names), what="CRDs established")


def _established(crd: Document) -> bool:
    conditions: Iterable[Document] = (crd.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
