"""Waits for an HTTP endpoint of a process of ours to say that all is well."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from tests.cluster.process import ClusterError

_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 5.0


def until_ok(url: str, *, token: str, tls: ssl.SSLContext, seconds: float, meanwhile: Callable[[], None]) -> None:
    """Ask until the answer is a success, on loopback and without any proxy.

    Args:
        url: what to ask.
        token: bearer token to send.
        tls: whom to trust, for an https url.
        seconds: deadline.
        meanwhile: called before each try; it raises when there is no use in waiting on.

    Raises:
        ClusterError: no success before the deadline; the message has the last answer.
    """
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - a url of our own making
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
    deadline = time.monotonic() + seconds
    problem = "no answer"
    while time.monotonic() < deadline:
        meanwhile()
        try:
            with opener.open(request, timeout=_ANSWER_SECONDS):
                return
        except urllib.error.HTTPError as error:
            problem = f"{error.code}: {error.read().decode(errors='replace').strip()}"
            error.close()
        except (urllib.error.URLError, OSError) as error:
            problem = str(error)
        time.sleep(_POLL_SECONDS)
    raise ClusterError(f"{url} is not well after {seconds:.0f} s: {problem}")
