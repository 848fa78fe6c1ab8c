"""Old ids in the table `legacy_payments`: the OldIds port.

Room: adapters/postgres.
"""

from payment_service.adapters.postgres.arrays import is_storable
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.codecs.events import decode_event
from payment_service.core.events import PaymentImported
from payment_service.core.imported import imported
from payment_service.core.importing import OldPayment

TRIES_MAX = 2
HISTORY = PaymentImported.__name__


class PostgresOldIds:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, old_id: str) -> OldPayment | None:
        if not is_storable(old_id):
            return None
        rows = await self._database.fetch_again(QUERIES["find_legacy"], (old_id,), tries=TRIES_MAX)
        if not rows:
            return None
        ((payment_id, document),) = rows
        if document is None:
            return OldPayment(payment_id)
        event = decode_event(HISTORY, document.encode())
        assert isinstance(event, PaymentImported), "what is decoded as it is one"
        return OldPayment(payment_id, imported(old_id, event), event)
