"""Rows of the Faust tables, for people: late by nature, and only those of this worker's partitions.

Room: web.
"""

from aiohttp import web
from faust.web import Blueprint

from payment_service.core.errors import Refused
from payment_service.web.endpoint import Endpoint, caller_of, path_id
from payment_service.web.envelope import success

table_rows = Blueprint("table_rows", url_prefix="/tables")


@table_rows.route("/payments/{payment_id}", name="payments_row")
class PaymentsRow(Endpoint):
    async def get(self, request: web.Request, payment_id: str) -> web.Response:
        if "admin" not in caller_of(request).roles:
            raise Refused("only an admin may read tables", code="FORBIDDEN")
        row = self.services.table_row(path_id(payment_id))
        if row is None:
            raise Refused("this worker's table has no such row", code="NOT_FOUND")
        return success(row)
