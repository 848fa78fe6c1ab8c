"""For commands that run beside a worker, or without one: the settings, pointing at what is there.

Room: adapters.
"""

import contextlib
from collections.abc import AsyncIterator

from payment_service.adapters.embedded import EmbeddedServices
from payment_service.adapters.embedded_broker import running_broker
from payment_service.adapters.settings import Settings
from payment_service.core.errors import Unavailable


@contextlib.asynccontextmanager
async def with_database(settings: Settings) -> AsyncIterator[Settings]:
    """Where no database is named, the embedded one: a running worker's, else started for this block."""
    if not settings.embedded_database:
        yield settings
        return
    async with EmbeddedServices(settings.data_dir, broker=False, database=True) as embedded:
        yield settings.with_services(database_url=embedded.database_url)


def with_broker(settings: Settings) -> Settings:
    """Where no broker is named, the embedded one of a running worker: it keeps nothing after its end.

    Raises: Unavailable.
    """
    if not settings.embedded_broker:
        return settings
    address = running_broker(settings.data_dir)
    if address is None:
        raise Unavailable(f"no embedded broker is running on {settings.data_dir}, and KAFKA_BROKERS names none")
    return settings.with_services(kafka_brokers=(address,))
