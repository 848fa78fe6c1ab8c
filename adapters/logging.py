"""Logs: one line of key=value (development) or JSON (production) an event, everything through structlog.

Room: adapters. Third parties log through the standard library; the same processors render them. Nothing secret may
reach a log in the first place; redaction.py is the net under that.
"""

import logging
import sys
from typing import Any

import orjson
import structlog

from payment_service.adapters.redaction import redact
from payment_service.codecs.times import rfc3339

ACCESS_LOGGER = "payment_service.web.middleware.access_log"
LOUD = {
    "aiokafka": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "opentelemetry": logging.ERROR,
    # Faust logs the life of our subclasses under our modules' names.
    "payment_service.agents.consumer": logging.WARNING,
    "payment_service.agents.durable_table": logging.WARNING,
    "payment_service.agents.faust_app": logging.WARNING,
}
"""Libraries that log every reconnection and assignment: only what an operator can act on."""


class AccessFormatter(logging.Formatter):
    """The line of an answered request, whose fields are the record's one dictionary of arguments.

    The processors below take 70 µs a line, which is more than all else that the web does for a request; this 10.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        timestamp = rfc3339(int(record.created * 1000))
        if self._as_json and isinstance(record.args, dict):
            level, logger = record.levelname.lower(), record.name
            line = {"event": "request", **record.args, "logger": logger, "level": level, "timestamp": timestamp}
            return orjson.dumps(line).decode()
        return f"{timestamp} {record.getMessage()}"


def configure_logging(level: str, *, as_json: bool, add_ids: Any = None) -> None:
    """For the process, once, before anything logs. `add_ids`: a processor, where lines belong to traces."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        *([] if add_ids is None else [add_ids]),
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    # Python's own report of a line that could not be written quotes the record as it was, secrets and all.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    access = logging.StreamHandler(sys.stderr)
    access.setFormatter(AccessFormatter(as_json=as_json))
    requests = logging.getLogger(ACCESS_LOGGER)
    requests.handlers[:] = [access]
    requests.propagate = False
    for name, at_least in LOUD.items():
        logging.getLogger(name).setLevel(max(at_least, root.level))
