"""Pages of Stripe's lists (docs.stripe.com/api/pagination) and the `expand` parameter.

Room: cli/provider_sim.
"""

from payment_service.cli.provider_sim import stripe_shapes as shapes
from payment_service.cli.provider_sim.stripe_ask import Ask, invalid
from payment_service.cli.provider_sim.stripe_books import PREFIXES, Books, kind_of
from payment_service.cli.provider_sim.world import Thing, shown

LIMIT, LIMIT_MAX = 10, 100
EXPAND_DEPTH_MAX = 4
"""docs.stripe.com/api/expanding_objects"""


def page(ask: Ask, oldest_first: list[Thing], url: str) -> Thing:
    """Newest first, from `starting_after` on."""
    limit = ask.number("limit")
    limit = LIMIT if limit is None else limit
    if not 1 <= limit <= LIMIT_MAX:
        raise invalid(f"Invalid limit: between 1 and {LIMIT_MAX}", "limit", "parameter_invalid_integer")
    things = oldest_first[::-1]
    ids = [thing["id"] for thing in things]
    after, before = ask.text("starting_after"), ask.text("ending_before")
    for name, value in (("starting_after", after), ("ending_before", before)):
        if value is not None and value not in ids:
            raise invalid(f"No such object: '{value[:100]}'", name, "resource_missing")
    if after is not None:
        things = things[ids.index(after) + 1 :]
    elif before is not None:
        things = things[: ids.index(before)][-limit:]
    return shapes.listing(url, [shown(thing) for thing in things[:limit]], has_more=len(things) > limit)


def expanded(books: Books, body: Thing, paths: list[str]) -> Thing:
    """Ids replaced by what they name. Raises StripeError for a path that leads nowhere."""
    for path in paths:
        names = path.split(".")
        if len(names) > EXPAND_DEPTH_MAX:
            raise invalid(f"You cannot expand more than {EXPAND_DEPTH_MAX} levels: {path}", "expand")
        body = _expand(books, body, names, path)
    return body


def _expand(books: Books, thing: Thing, names: list[str], path: str) -> Thing:
    name, rest = names[0], names[1:]
    if name not in thing:
        raise invalid(f"This property cannot be expanded ({path}).", "expand")
    value = thing[name]
    if isinstance(value, list):
        return {**thing, name: [_expand(books, one, rest, path) for one in value]}
    if isinstance(value, str):
        kind = next((kind for kind, prefix in PREFIXES.items() if value.startswith(prefix)), None)
        named = books.world.get(kind_of(kind), value) if kind is not None else None
        if named is None:
            raise invalid(f"This property cannot be expanded ({path}).", "expand")
        value = shown(named)
    if value is None or not rest:
        return {**thing, name: value}
    return {**thing, name: _expand(books, value, rest, path)}
