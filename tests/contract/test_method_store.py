"""The MethodStore port, over memory and PostgreSQL."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from servers.postgres import execute

from payment_service.adapters.memory.payment_methods import MemoryMethods
from payment_service.adapters.postgres.payment_methods import PostgresMethods
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.errors import Malformed, Refused
from payment_service.core.payment_method import Card, Method, MethodSecrets, MethodStatus, MethodStore, Usable

CARD = Card("visa", "4242", 12, 2034)
LEASE_S = 60.0
ACTIVE, ACTION, PENDING = MethodStatus.ACTIVE, MethodStatus.REQUIRES_ACTION, MethodStatus.PENDING


@pytest_asyncio.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[MethodStore]:
    if request.param == "memory":
        yield MemoryMethods()
        return
    database = Database(request.getfixturevalue("database_url"))
    methods = PostgresMethods(database, AesGcmCipher(b"k" * 32))
    yield methods
    await methods.close(1.0)
    await database.close()


def a_method(user: str = "ann", given: str | None = None, **more: object) -> Method:
    return Method(
        f"pmt_{secrets.token_hex(8)}", user, "STRIPE", "card", PENDING, 1_800_000_000_000,
        secrets=MethodSecrets(given=given or f"tok_{secrets.token_hex(8)}"), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def kept(method: Method, token: str | None = None) -> Method:
    sealed = MethodSecrets(token=token or f"pm_{method.method_id}", customer="cus_1")
    return replace(method, status=ACTIVE, card=CARD, secrets=sealed)


async def saved(store: MethodStore, user: str = "ann", **more: object) -> Method:
    stored = await store.settle(kept(await store.begin(a_method(user, **more), 20, LEASE_S)))  # type: ignore[arg-type]
    assert stored is not None
    return stored


async def test_one_is_saved_and_can_be_charged(store: MethodStore) -> None:
    begun = await store.begin(a_method(), 20, LEASE_S)
    assert await store.usable("ann", begun.method_id) is None, "not before the provider has said yes"
    stored = await store.settle(kept(begun, "pm_1"))
    assert stored is not None
    assert (stored.status, stored.card, stored.is_default) == (ACTIVE, CARD, False)
    assert await store.find("ann", begun.method_id) == stored
    assert await store.usable("ann", begun.method_id) == Usable(begun.method_id, "STRIPE", "pm_1", "cus_1")
    assert await store.usable("ann", None) is None, "nobody chose a default"
    assert await store.settle(kept(begun, "pm_2")) is None, "it is neither PENDING nor waiting any more"


async def test_one_token_makes_one_method(store: MethodStore) -> None:
    first = await store.begin(a_method(given="tok_1"), 20, LEASE_S)
    assert (await store.begin(a_method(given="tok_1"), 20, LEASE_S)).method_id == first.method_id
    assert (await store.begin(a_method("bob", given="tok_1"), 20, LEASE_S)).user_id == "bob"
    both = await asyncio.gather(*(store.begin(a_method(given="tok_2"), 20, LEASE_S) for _ in range(8)))
    assert len({one.method_id for one in both}) == 1


async def test_a_user_has_so_many_and_no_more(store: MethodStore) -> None:
    begun = await asyncio.gather(
        *(store.begin(a_method(), 3, LEASE_S) for _ in range(8)), return_exceptions=True
    )  # fmt: skip
    refused = [one for one in begun if isinstance(one, Refused)]
    assert (len(refused), refused[0].code) == (5, "INVALID_STATE")
    await store.begin(a_method("bob"), 3, LEASE_S)
    first = next(one for one in begun if isinstance(one, Method))
    await store.forget(first)
    await store.begin(a_method(), 3, LEASE_S)


async def test_a_user_has_one_default(store: MethodStore) -> None:
    first, second = await saved(store, wants_default=True), await saved(store)
    bobs = await saved(store, "bob", wants_default=True)
    assert first.is_default and bobs.is_default
    chosen = await store.set_default("ann", second.method_id)
    assert chosen is not None and chosen.is_default
    third = await saved(store, wants_default=True)
    listed = await store.listed("ann")
    assert listed[0].method_id == third.method_id
    assert [one.is_default for one in listed] == [True, False, False]
    default = await store.usable("ann", None)
    assert default is not None and default.method_id == third.method_id
    assert await store.set_default("ann", bobs.method_id) is None
    assert await store.set_default("bob", third.method_id) is None
    assert (await store.listed("ann"))[0].is_default and (await store.listed("bob"))[0].is_default


async def test_defaults_that_are_set_side_by_side_leave_one(store: MethodStore) -> None:
    methods = [await saved(store) for _ in range(4)]
    for _ in range(5):
        await asyncio.gather(*(store.set_default("ann", one.method_id) for one in methods))
        assert sum(one.is_default for one in await store.listed("ann")) == 1


async def test_one_that_waits_is_the_default_only_when_it_can_be_charged(store: MethodStore) -> None:
    old = await saved(store, wants_default=True)
    begun = await store.begin(a_method(wants_default=True), 20, LEASE_S)
    waiting = await store.settle(replace(kept(begun), status=ACTION), 10.0)
    assert waiting is not None and not waiting.is_default
    assert await store.set_default("ann", begun.method_id) is None
    default = await store.usable("ann", None)
    assert default is not None and default.method_id == old.method_id
    confirmed = await store.settle(kept(waiting))
    assert confirmed is not None and confirmed.is_default
    default = await store.usable("ann", None)
    assert default is not None and default.method_id == begun.method_id


async def test_a_removed_one_is_nowhere_but_with_the_sweep(store: MethodStore) -> None:
    method = await saved(store, wants_default=True)
    assert not await store.remove("bob", method.method_id)
    assert await store.remove("ann", method.method_id)
    assert not await store.remove("ann", method.method_id)
    assert await store.listed("ann") == []
    assert await store.find("ann", method.method_id) is None
    assert await store.usable("ann", method.method_id) is None
    assert await store.usable("ann", None) is None
    (claimed,) = await store.claim(10, LEASE_S)
    assert (claimed.method_id, claimed.status) == (method.method_id, MethodStatus.REMOVED)
    assert claimed.secrets.token == method.secrets.token
    assert await store.claim(10, LEASE_S) == []
    await store.later(claimed, 0.0)
    (again,) = await store.claim(10, LEASE_S)
    assert again.tries == claimed.tries + 1
    await store.later(claimed, 0.0)
    assert await store.claim(10, LEASE_S) == [], "an older claim changes nothing"
    await store.forget(again)
    await store.later(again, 0.0)
    assert await store.claim(10, LEASE_S) == []


async def test_one_that_is_being_saved_cannot_be_removed(store: MethodStore) -> None:
    begun = await store.begin(a_method(), 20, 0.0)
    assert not await store.remove("ann", begun.method_id)
    (claimed,) = await store.claim(10, LEASE_S)
    assert (claimed.status, claimed.secrets.given) == (PENDING, begun.secrets.given)


async def test_another_users_does_not_exist(store: MethodStore) -> None:
    method = await saved(store)
    assert await store.find("bob", method.method_id) is None
    assert await store.usable("bob", method.method_id) is None
    assert await store.listed("bob") == []


async def test_many_are_found_at_once(store: MethodStore) -> None:
    users = [f"user-{number}" for number in range(20)]
    methods = [await saved(store, user, wants_default=number % 2 == 0) for number, user in enumerate(users)]
    asked = [store.usable(user, None) for user in users]
    asked += [store.usable(user, one.method_id) for user, one in zip(users, methods, strict=True)]
    found = await asyncio.gather(*asked)
    assert [one is not None for one in found[:20]] == [number % 2 == 0 for number in range(20)]
    assert [one.method_id for one in found[20:] if one] == [one.method_id for one in methods]


async def test_the_provider_tells_of_them(store: MethodStore) -> None:
    begun = await store.begin(a_method(), 20, LEASE_S)
    await store.settle(kept(begun, "pm_told"))
    assert await store.card_changed("STRIPE", "pm_told", Card(exp_month=1, exp_year=2040)) == 1
    found = await store.find("ann", begun.method_id)
    assert found is not None and found.card == Card("visa", "4242", 1, 2040)
    assert await store.card_changed("STRIPE", "pm_other", CARD) == 0
    assert await store.detached("MOCK", "pm_told") == 0
    assert await store.detached("STRIPE", "pm_told") == 1
    assert await store.find("ann", begun.method_id) is None


async def test_the_customer_is_kept(store: MethodStore) -> None:
    assert await store.customer_of("ann", "STRIPE") is None
    await store.keep_customer("ann", "STRIPE", "cus_1")
    await store.keep_customer("ann", "STRIPE", "cus_2")
    assert await store.customer_of("ann", "STRIPE") == "cus_2"
    assert await store.customer_of("ann", "MOCK") is None


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
async def test_text_that_cannot_be_stored_is_refused_or_not_there(store: MethodStore, text: str) -> None:
    for method in (a_method(text), a_method(given=f"tok_{text}")):
        with pytest.raises(Refused):
            await store.begin(method, 20, LEASE_S)
    assert await store.find("ann", text) is None
    assert await store.usable("ann", text) is None


async def test_what_is_charged_is_sealed_in_its_row(database_url: str) -> None:
    database = Database(database_url)
    store = PostgresMethods(database, AesGcmCipher(b"k" * 32))
    begun = await store.begin(a_method(given="tok_secret"), 20, LEASE_S)
    await store.keep_customer("ann", "STRIPE", "cus_secret")
    (before,) = execute(database_url, "select payment_methods::text from payment_service.payment_methods")
    await store.settle(kept(begun, "pm_secret"))
    other = await saved(store)
    rows = execute(
        database_url,
        "select m::text from payment_service.payment_methods m union all"
        " select c::text from payment_service.provider_customers c",
    )
    for word in ("secret", b"secret".hex()):
        assert word not in str(before) and word not in str(rows)
    execute(
        database_url,
        "update payment_service.payment_methods m set secrets = o.secrets from payment_service.payment_methods o"
        f" where m.id = '{begun.method_id}' and o.id = '{other.method_id}'",
    )
    with pytest.raises(Malformed):
        await store.usable("ann", begun.method_id)
    await store.close(1.0)
    await database.close()
