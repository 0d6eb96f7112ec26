"""Log records on stderr, as text for people or as one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from trtllm_operator.runtime.settings import LogFormat


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def without_insides(record: logging.LogRecord) -> bool:
    """A filter that takes kopf's tracebacks out: a watch that has failed is started anew, and the message says what it was."""
    if record.name.partition(".")[0] == "kopf":
        record.exc_info = record.exc_text = None
    return True


def configure(log_format: LogFormat) -> None:
    """Set up logging of this process."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    handler.addFilter(without_insides)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # kopf tells each event; what it says about requests that fail is worth reading.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf.objects").setLevel(logging.ERROR)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # signals are ours, which it warns of
    logging.getLogger("asyncio").setLevel(logging.WARNING)
