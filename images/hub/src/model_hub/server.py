"""The Hub's HTTP protocol, as far as huggingface_hub needs it to look at models and download them.

Endpoints and headers: https://huggingface.co/docs/hub/api, and huggingface_hub's hf_api.py, file_download.py and utils/_http.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from model_hub.store import Blob, Commit, Repository, etag, is_large, oid

_DATE = "2026-01-01T00:00:00.000Z"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Tokens:
    """Who may do what."""

    granted: str
    """Opens gated repositories."""
    ungranted: str
    """A valid token of somebody who was not granted access to them."""


def _refuse(status: int, code: str | None, message: str) -> HTTPException:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return HTTPException(status, message, headers)


@dataclass
class Hub:
    """The server."""

    repositories: dict[str, Repository]
    tokens: Tokens
    _broken_off: set[tuple[str, str]] = field(default_factory=set)

    def app(self) -> Starlette:
        """The ASGI application."""
        model = "/api/models/{namespace}/{name}"
        routes = [
            Route("/healthz", self._healthz),
            Route("/api/whoami-v2", self._whoami),
            Route("/api/models", self._list),
            Route(model, self._info),
            Route(model + "/revision/{revision}", self._info),
            Route(model + "/refs", self._refs),
            Route(model + "/commits/{revision}", self._commits),
            Route(model + "/tree/{revision}", self._tree),
            Route(model + "/tree/{revision}/{path:path}", self._tree),
            Route("/{namespace}/{name}/resolve/{revision}/{path:path}", self._file, methods=["GET", "HEAD"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _error})

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def _whoami(self, request: Request) -> Response:
        if self._token(request) is None:
            raise _refuse(401, None, "Invalid username or password.")
        return JSONResponse({"type": "user", "name": "demo", "orgs": [], "auth": {"type": "access_token"}})

    async def _list(self, request: Request) -> Response:
        self._token(request)
        return JSONResponse([{"id": name, "modelId": name, "private": False} for name in sorted(self.repositories)])

    async def _info(self, request: Request) -> Response:
        repository = self._repository(request)
        commit = self._commit(request, repository)
        details = request.query_params.get("blobs", "").lower() in {"true", "1"}
        siblings = [{"rfilename": path, **(_details(path, blob) if details else {})} for path, blob in commit.files.items()]
        return JSONResponse(
            {
                "_id": commit.id[:24],
                "id": repository.name,
                "modelId": repository.name,
                "author": repository.name.split("/", maxsplit=1)[0],
                "sha": commit.id,
                "lastModified": _DATE,
                "createdAt": _DATE,
                "private": False,
                "gated": repository.gated,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "library_name": "transformers",
                "pipeline_tag": "text-generation",
                "tags": ["transformers", "safetensors", "llama"],
                "usedStorage": sum(blob.size for blob in commit.files.values()),
                "siblings": siblings,
            }
        )

    async def _refs(self, request: Request) -> Response:
        repository = self._repository(request)
        entries = {
            name: {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit.id} for name, commit in repository.references.items()
        }
        main = {**entries.pop("main"), "ref": "refs/heads/main"}
        return JSONResponse({"branches": [main], "tags": list(entries.values()), "converts": []})

    async def _commits(self, request: Request) -> Response:
        repository = self._repository(request)
        until = repository.commits.index(self._commit(request, repository))
        listed = [
            {"id": commit.id, "title": commit.title, "message": "", "authors": [{"user": "demo"}], "date": _DATE}
            for commit in reversed(repository.commits[: until + 1])
        ]
        return JSONResponse(listed)

    async def _tree(self, request: Request) -> Response:
        repository = self._repository(request)
        commit = self._commit(request, repository)
        folder = request.path_params.get("path", "").rstrip("/")
        listed = [
            {"type": "file", "oid": oid(path, blob), "size": blob.size, "path": path, **({"lfs": _lfs(blob)} if is_large(path) else {})}
            for path, blob in commit.files.items()
            if not folder or path.startswith(f"{folder}/")
        ]
        if folder and not listed:
            raise _refuse(404, "EntryNotFound", f"{folder} does not exist on {commit.id}")
        return JSONResponse(listed)

    async def _file(self, request: Request) -> Response:
        repository = self._repository(request)
        if repository.gated:
            self._open_gate(request, repository)
        commit = self._commit(request, repository)
        path = request.path_params["path"]
        headers = {"X-Repo-Commit": commit.id}
        blob = commit.files.get(path)
        if blob is None:
            message = f"Entry not found: {path}"
            raise HTTPException(404, message, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": message})
        tag = f'"{etag(path, blob)}"'
        headers |= {"ETag": tag, "Accept-Ranges": "bytes", "Content-Disposition": f'inline; filename="{path.rsplit("/", maxsplit=1)[-1]}"'}
        if is_large(path):
            headers |= {"X-Linked-Size": str(blob.size), "X-Linked-ETag": tag}
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(blob.size)})
        return self._content(request, repository, path, blob, headers)

    def _content(self, request: Request, repository: Repository, path: str, blob: Blob, headers: dict[str, str]) -> Response:
        if blob.content is None:
            raise _refuse(503, None, f"{path} is listed with {blob.size} bytes, but this hub does not hold them")
        kind = "application/octet-stream"
        if (asked := _RANGE.fullmatch(request.headers.get("range", ""))) is None:
            if repository.flaky and is_large(path) and (repository.name, path) not in self._broken_off:
                self._broken_off.add((repository.name, path))
                return _BreaksOff(blob.content, headers=headers, media_type=kind)
            return Response(blob.content, headers=headers, media_type=kind)
        first, last = asked.groups()
        start = int(first) if first else max(0, blob.size - int(last or 0))
        end = min(int(last) + 1 if first and last else blob.size, blob.size)
        if start >= end:
            raise HTTPException(416, "Requested range not satisfiable", {"Content-Range": f"bytes */{blob.size}"})
        return Response(blob.content[start:end], 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{blob.size}"}, kind)

    def _token(self, request: Request) -> str | None:
        """The token of the request, if there is one."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        if token not in {self.tokens.granted, self.tokens.ungranted}:
            raise _refuse(401, None, "Invalid credentials in Authorization header")
        return token

    def _repository(self, request: Request) -> Repository:
        token = self._token(request)
        name = "{namespace}/{name}".format_map(request.path_params)
        if (repository := self.repositories.get(name)) is not None:
            return repository
        # The Hub does not tell strangers whether a repository exists.
        raise (
            _refuse(404, "RepoNotFound", "Repository not found") if token else _refuse(401, "RepoNotFound", "Invalid username or password.")
        )

    def _commit(self, request: Request, repository: Repository) -> Commit:
        revision = request.path_params.get("revision", "main")
        if (commit := repository.find(revision)) is None:
            raise _refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _open_gate(self, request: Request, repository: Repository) -> None:
        token = self._token(request)
        if token == self.tokens.granted:
            return
        access = f"Access to model {repository.name} is restricted"
        if token is None:
            raise _refuse(401, "GatedRepo", f"{access}. You must have access to it and be authenticated to access it. Please log in.")
        raise _refuse(403, "GatedRepo", f"{access} and you are not in the authorized list.")


def _lfs(blob: Blob) -> dict[str, Any]:
    return {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer())}


def _details(path: str, blob: Blob) -> dict[str, Any]:
    """What `blobs=true` adds to a file."""
    lfs = {"lfs": {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer())}} if is_large(path) else {}
    return {"size": blob.size, "blobId": oid(path, blob), **lfs}


async def _error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))


class _BreaksOff(Response):
    """Sends half of what it announces. The server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body)[: len(self.body) // 2], "more_body": True})
