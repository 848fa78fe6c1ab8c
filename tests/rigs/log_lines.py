"""What the service's own logging writes, for tests; afterwards everything logs as before."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from payment_service.adapters.logging import ACCESS_LOGGER, configure_logging


@contextmanager
def logged(level: str = "INFO", add_ids: Any = None) -> Iterator[io.StringIO]:
    """As JSON, access lines too. No logger is kept for later: each would keep how it logged here for ever."""
    loggers = [logging.getLogger(name) for name in ("", ACCESS_LOGGER)]
    kept = [(it, it.handlers[:], it.level, it.propagate) for it in loggers]
    raises = logging.raiseExceptions
    configure_logging(level, as_json=True, add_ids=add_ids)
    structlog.configure(cache_logger_on_first_use=False)
    written = io.StringIO()
    for logger in loggers:
        for handler in logger.handlers:
            assert isinstance(handler, logging.StreamHandler)
            handler.setStream(written)
    try:
        yield written
    finally:
        for logger, handlers, at_least, propagate in kept:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(at_least)
        logging.raiseExceptions = raises
        structlog.reset_defaults()
