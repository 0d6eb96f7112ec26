"""What the API server's refusals mean for a pass: look again soon, wait, or show it to a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """The API server did not do what was asked. Says what, where, and its own words."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None, names: str = "") -> None:
        """`names`: the object that the answer speaks of, as far as it speaks of one."""
        super().__init__(message)
        self.names = names
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class NotFoundError(ApiError):
    """404: the object, its namespace or its kind is not there."""


class ConflictError(ApiError):
    """409: a precondition (uid, resourceVersion) does not hold, or the object exists already."""


class RefusedError(ApiError):
    """The same request will be refused again until a person changes something."""


class ForbiddenError(RefusedError):
    """403: no right, a quota, or an admission controller says no."""


class InvalidError(RefusedError):
    """400, 405, 413, 415 or 422: the object is not valid."""


class TypedPatchError(RefusedError):
    """500 that is none: the object does not fit the schema (an older CRD, a key twice in a list-map)."""


class WebhookDownError(RefusedError):
    """500 because an admission webhook of somebody else does not answer (failurePolicy Fail). Nobody has said no, but it may last."""


class TransientError(ApiError):
    """The same request may succeed later."""


class ThrottledError(TransientError):
    """429: too many requests; `retry_after` says how many seconds to wait."""


class GoneError(TransientError):
    """410: a continue token or resourceVersion is too old."""


class TerminatingError(TransientError):
    """403 because the namespace is being deleted: nothing can be made in it, and soon nothing will be asked."""


class NotLeadingError(TransientError):
    """Nothing was asked: another operator leads, or is about to."""


class UnreachableError(TransientError):
    """No answer: connection refused, reset or timed out."""


_WEBHOOK = "failed calling webhook"  # k8s.io/apiserver, pkg/admission/plugin/webhook/errors
_TYPED_PATCH = ("failed to create typed patch object", "field not declared in schema")


def classify(method: str, path: str, status: int, headers: Mapping[str, str], body: str) -> ApiError:
    """The error for an answer with a status of 400 or more."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    document: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    said = str(document.get("message") or body.strip() or "no message")[:2048]
    reason = str(document.get("reason") or "")
    details = document.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    cause_types = {cause.get("reason") for cause in causes or () if isinstance(cause, dict)}
    text = f"{method} {path}: {status} {reason}: {said}"
    retry_after = _seconds(headers.get("Retry-After"))

    kind: type[ApiError]
    match status:
        case 404:
            kind = NotFoundError
        case 409:
            kind = ConflictError
        case 410:
            kind = GoneError
        case 429:
            kind = ThrottledError
        case 403:
            kind = TerminatingError if "NamespaceTerminating" in cause_types else ForbiddenError
        case 400 | 405 | 413 | 415 | 422:
            kind = InvalidError
        case 500 if _WEBHOOK in said:
            kind = WebhookDownError
        case 500 if any(mark in said for mark in _TYPED_PATCH):
            kind = TypedPatchError
        case _:
            kind = TransientError  # 401 (a token that is being rotated), 408 and 5xx
    named = details.get("name") if isinstance(details, dict) else None
    return kind(text, status=status, reason=reason, retry_after=retry_after, names=str(named or ""))


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
