"""What the service's own logging writes, for tests; conftest.py puts everything back afterwards."""

import io
import logging
from typing import Any

from payment_service.adapters.logging import ACCESS_LOGGER, configure_logging


def logged(level: str = "INFO", add_ids: Any = None) -> io.StringIO:
    """As JSON, access lines too."""
    configure_logging(level, as_json=True, add_ids=add_ids)
    written = io.StringIO()
    for logger in (logging.getLogger(name) for name in ("", ACCESS_LOGGER)):
        for handler in logger.handlers:
            assert isinstance(handler, logging.StreamHandler)
            handler.setStream(written)
    return written
