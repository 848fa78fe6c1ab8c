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
_CODES = {
    exponent: ", ".join(repr(code) for code, digits in EXPONENTS.items() if digits == exponent)
    for exponent in sorted(set(EXPONENTS.values()) - {2})
}
_WHEN = " ".join(f"when currency in ({codes}) then {10 ** (4 - exponent)}" for exponent, codes in _CODES.items())
AMOUNT = f"(amount_minor::float8 * case {_WHEN} else 100 end)"
"""Ten thousandths of a major unit: one order for all currencies. The index by amount is of this very expression (of
another one it would not be used). Floating point, since it cannot overflow, which would refuse the payment; exact for
all amounts that are allowed but the largest of the currencies without decimals."""
_AMOUNT_MAX = 1e300
"""More than any payment; what is asked beyond it would be no number to PostgreSQL."""
SORTS = {
    "createdAt": ("created_at", "id"),
    "amount": (AMOUNT, "id"),
    "status": ("status", "created_at", "id"),
}
"""Ties are broken by id, against the direction of the order: that is how the indexes run, read from either end."""


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
    add(f"{AMOUNT} >= %s", _exact(query.amount_min))
    add(f"{AMOUNT} <= %s", _exact(query.amount_max))
    return conditions, values


def _exact(amount: float | None) -> Decimal | None:
    """As AMOUNT has it. 19.99 is meant as written, not as the double next to it: else 19.99 would not be <= 19.99."""
    return None if amount is None else Decimal(repr(min(amount, _AMOUNT_MAX))) * 10_000


def _order(query: PaymentFilter) -> str:
    *columns, last = SORTS[query.sort_by]
    order, ties = ("desc", "asc") if query.descending else ("asc", "desc")
    return ", ".join([*(f"{column} {order}" for column in columns), f"{last} {ties}"])


async def find_payments(
    read: Callable[[str, Sequence[Any]], Awaitable[list[Any]]], query: PaymentFilter
) -> PaymentPage:
    """One page and how many there are in all. What is skipped and what is counted is read from an index alone; rows
    are fetched for the page only."""
    conditions, values = _conditions(query)
    where, order = " and ".join(conditions), _order(query)
    rows = await read(
        "select state from ("  # noqa: S608 - fixed pieces, see the module
        f"select id from payment_service.payments where {where} order by {order} limit %s offset %s"
        f") page join payment_service.payments using (id) order by {order}",
        (*values, query.limit, query.offset),
    )
    # From the oldest: their pages are known to be visible to all, so that none of their rows is fetched. By amount the
    # index by amount alone says it.
    by_amount = query.amount_min is not None or query.amount_max is not None
    counted = "" if by_amount else " order by created_at, id desc"
    ((total,),) = await read(
        f"select count(*) from (select 1 from payment_service.payments where {where}{counted} limit %s) t",  # noqa: S608
        (*values, TOTAL_MAX + 1),
    )
    return PaymentPage([decode_state(state) for (state,) in rows], min(total, TOTAL_MAX), total > TOTAL_MAX)
