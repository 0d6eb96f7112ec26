"""Keeps secrets out of everything that the stage program says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

REPLACEMENT = "[redacted]"

_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$", re.IGNORECASE)
_SHORTEST = 4  # a shorter value is no secret, and replacing it would garble the text
# A token that came from elsewhere than the environment, and credentials in a URL.
_SHAPES = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


def _forms(secret: str) -> Iterator[str]:
    """A secret as others print it: in a URL, in JSON, by repr, in an authorization header, and a line of it alone."""
    yield secret
    yield quote(secret, safe="", errors="replace")
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield base64.b64encode(secret.encode(errors="replace")).decode()
    yield from (line.strip() for line in secret.splitlines())


class Redactor:
    """Replaces the values of secret variables of an environment, and what has the shape of a secret."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {form for name, value in environment.items() if _SECRET_NAME.search(name) for form in _forms(value.strip())}
        ordered = sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._values is not None:
            text = self._values.sub(REPLACEMENT, text)
        return _SHAPES.sub(REPLACEMENT, text)

    def value(self, value: Any) -> Any:
        """A copy of a JSON value without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value
