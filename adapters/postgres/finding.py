"""Lists of payments: filters, order and page as SQL.

Room: adapters/postgres. Only fixed pieces of SQL are put together here; every value travels as a parameter.
"""

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

from payment_service.codecs.state import decode_state
from payment_service.core.money import EXPONENTS
from payment_service.core.ports import PaymentFilter, PaymentPage

TOTAL_MAX = 10_000
"""`total` is exact up to here; counting on would read the whole table."""
SORT_COLUMNS = {"createdAt": "created_at", "amount": "amount_minor", "status": "status"}
_FACTOR = (
    "case "
    + " ".join(
        f"when currency in ({', '.join(repr(c) for c, e in EXPONENTS.items() if e == exponent)}) then {10**exponent}"
        for exponent in sorted(set(EXPONENTS.values()) - {2})
    )
    + " else 100 end"
)
"""Minor units of one major unit, by the row's currency."""


def _conditions(query: PaymentFilter) -> tuple[list[str], list[Any]]:
    conditions, values = ["amount_minor > 0"], []  # 0: not known, nobody is shown it

    def add(condition: str, value: Any) -> None:
        if value is not None:
            conditions.append(condition)
            values.append(value)

    add("user_id = %s", query.user_id)
    add("status = %s", query.status)
    add("provider = %s", query.provider)
    add("created_at >= to_timestamp(%s / 1000.0)", query.created_from_ms)
    add("created_at <= to_timestamp(%s / 1000.0)", query.created_to_ms)
    add(f"amount_minor >= %s * ({_FACTOR})", _exact(query.amount_min))
    add(f"amount_minor <= %s * ({_FACTOR})", _exact(query.amount_max))
    return conditions, values


def _exact(amount: float | None) -> Decimal | None:
    """19.99 is meant as written, not as the double next to it: else 1999 would not be <= 19.99 * 100."""
    return None if amount is None else Decimal(repr(amount))


async def find_payments(
    read: Callable[[str, Sequence[Any]], Awaitable[list[Any]]], query: PaymentFilter
) -> PaymentPage:
    """One page and how many there are in all. Ties are broken by id, against the direction of the order: that is how
    the indexes run."""
    conditions, values = _conditions(query)
    where = " and ".join(conditions)
    order, ties = ("desc", "asc") if query.descending else ("asc", "desc")
    column = SORT_COLUMNS[query.sort_by]
    rows = await read(
        f"select state from payment_service.payments where {where} "  # noqa: S608 - fixed pieces, see the module
        f"order by {column} {order}, id {ties} limit %s offset %s",
        (*values, query.limit, query.offset),
    )
    ((total,),) = await read(
        f"select count(*) from (select 1 from payment_service.payments where {where} limit %s) t",  # noqa: S608
        (*values, TOTAL_MAX + 1),
    )
    return PaymentPage([decode_state(state) for (state,) in rows], min(total, TOTAL_MAX), total > TOTAL_MAX)
