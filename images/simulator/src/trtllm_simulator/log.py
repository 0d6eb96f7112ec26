"""Log lines in the form of TensorRT-LLM's logger: `[MM/DD/YYYY-HH:MM:SS] [TRT-LLM] [I] text`, on standard output."""

from __future__ import annotations

import sys
import time

_LEVELS = ("internal_error", "error", "warning", "info", "verbose", "debug", "trace")
_LETTER = {"internal_error": "F", "error": "E", "warning": "W", "info": "I", "verbose": "V", "debug": "D", "trace": "D"}
LEVELS = _LEVELS

_threshold = {"level": "info"}


def set_level(level: str) -> None:
    """Hides what is less severe."""
    _threshold["level"] = level


def log(level: str, text: str, *, source: str = "TRT-LLM") -> None:
    """One line."""
    if _LEVELS.index(level) <= _LEVELS.index(_threshold["level"]):
        stamp = time.strftime("%m/%d/%Y-%H:%M:%S")
        sys.stdout.write(f"[{stamp}] [{source}] [{_LETTER[level]}] {text}\n")
        sys.stdout.flush()


def info(text: str) -> None:
    log("info", text)


def warning(text: str) -> None:
    log("warning", text)


def error(text: str) -> None:
    log("error", text)


def banner(text: str) -> None:
    """The first line, whatever the level."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def elapsed(seconds: float) -> str:
    """Duration as the real tools print it."""
    return time.strftime("%H:%M:%S", time.gmtime(seconds))
