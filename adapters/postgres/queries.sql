-- Every statement of the service, by name (queries.py). Arrays of one statement belong together by position.

-- changes --
-- The changes of many payments: `expected` is the version each was decided on, 0 for a payment that must not exist.
-- Documents come joined by a control character, which JSON text never contains.
c as (
  select * from unnest(
    %s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::bigint[],
    %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::boolean[], %s::int[], %s::int[],
    string_to_array(%s, chr(30)), %s::text[], %s::text[], %s::bigint[], %s::bigint[]
  ) as t(id, expected, order_id, user_id, status, provider, amount_minor, currency, authorized, captured,
    refund_pending, refunded, disputed, needs_review, version, sequence, state, secrets, chain_head, created_ms,
    updated_ms)
)

-- insert_payments --
ins as (
  insert into payment_service.payments (id, order_id, user_id, status, provider, amount_minor, currency, authorized,
    captured, refund_pending, refunded, disputed, needs_review, version, sequence, state, secrets, chain_head,
    created_at, updated_at)
  select id, order_id, user_id, status, provider, amount_minor, currency, authorized, captured, refund_pending,
    refunded, disputed, needs_review, version, sequence, state, decode(nullif(secrets, ''), 'hex'),
    decode(chain_head, 'hex'), to_timestamp(created_ms::float8 / 1000), to_timestamp(updated_ms::float8 / 1000)
  from c where expected = 0
  on conflict do nothing
  returning id
)

-- update_payments --
-- `secrets` null: as they were; empty: none any more.
upd as (
  update payment_service.payments p
  set user_id = c.user_id, status = c.status, provider = c.provider, amount_minor = c.amount_minor,
    currency = c.currency, authorized = c.authorized, captured = c.captured, refund_pending = c.refund_pending,
    refunded = c.refunded, disputed = c.disputed, needs_review = c.needs_review, version = c.version,
    sequence = c.sequence, state = c.state,
    secrets = case when c.secrets is null then p.secrets else decode(nullif(c.secrets, ''), 'hex') end,
    chain_head = decode(c.chain_head, 'hex'), updated_at = to_timestamp(c.updated_ms::float8 / 1000)
  from c
  where c.expected > 0 and p.id = c.id and p.version = c.expected
  returning p.id
)

-- insert_events --
e as (
  select e.* from unnest(
    %s::text[], %s::int[], %s::int[], %s::text[], %s::bigint[], string_to_array(%s, chr(30)), %s::text[], %s::text[],
    %s::int[], string_to_array(%s, chr(30), '')
  ) as e(payment_id, version, sequence, type, at_ms, data, hash, topic, shard, value)
  join won on won.id = e.payment_id
), ev as (
  insert into payment_service.payment_events (payment_id, version, sequence, type, at, data, hash)
  select payment_id, version, sequence, type, to_timestamp(at_ms::float8 / 1000), convert_to(data, 'UTF8'),
    decode(hash, 'hex')
  from e
)

-- insert_outbox --
outb as (
  insert into payment_service.outbox (shard, payment_id, sequence, topic, at, traceparent, value)
  select shard, payment_id, sequence, topic, to_timestamp(at_ms::float8 / 1000), null, convert_to(value, 'UTF8')
  from e where topic is not null
)

-- insert_inbox --
-- A plain insert: the same command id for two payments must fail, not be passed over.
inb as (
  insert into payment_service.inbox (command_id, payment_id)
  select i.command_id, i.payment_id from unnest(%s::text[], %s::text[]) as i(command_id, payment_id)
  join won on won.id = i.payment_id
)

-- upsert_transactions --
-- `wait_s` null: settled, the request is not needed any more. A request is kept as it was first committed.
tra as (
  insert into payment_service.transactions as t (id, payment_id, number, type, status, amount_minor, currency,
    provider, provider_key, provider_id, request, owner, due_at, tries, created_at, updated_at)
  select x.id, x.payment_id, x.number, x.type, x.status, x.amount_minor, x.currency, x.provider, x.provider_key,
    x.provider_id, decode(x.request, 'hex'), x.owner, now() + x.wait_s * interval '1 second', x.tries,
    to_timestamp(x.created_ms::float8 / 1000), to_timestamp(x.updated_ms::float8 / 1000)
  from unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[],
    %s::text[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::int[], %s::bigint[], %s::bigint[])
    as x(id, payment_id, number, type, status, amount_minor, currency, provider, provider_key, provider_id, request,
      owner, wait_s, tries, created_ms, updated_ms)
  join won on won.id = x.payment_id
  on conflict (id) do update
  set status = excluded.status, amount_minor = excluded.amount_minor, provider_id = excluded.provider_id,
    updated_at = excluded.updated_at, owner = excluded.owner, due_at = excluded.due_at,
    tries = t.tries + excluded.tries,
    request = case when excluded.due_at is null then null else coalesce(t.request, excluded.request) end
)

-- upsert_refunds --
ref as (
  insert into payment_service.refunds (id, payment_id, number, amount_minor, currency, status, reason, provider_id,
    created_at, updated_at)
  select r.id, r.payment_id, r.number, r.amount_minor, r.currency, r.status, r.reason, r.provider_id,
    to_timestamp(r.created_ms::float8 / 1000), to_timestamp(r.updated_ms::float8 / 1000)
  from unnest(%s::text[], %s::text[], %s::int[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::bigint[], %s::bigint[])
    as r(id, payment_id, number, amount_minor, currency, status, reason, provider_id, created_ms, updated_ms)
  join won on won.id = r.payment_id
  on conflict (id) do update
  set status = excluded.status, amount_minor = excluded.amount_minor, provider_id = excluded.provider_id,
    updated_at = excluded.updated_at
)

-- mark_unchanged --
-- Commands that changed nothing are marked too: sent again later, they must still change nothing.
mark as (
  insert into payment_service.inbox (command_id, payment_id)
  select * from unnest(%s::text[], %s::text[]) on conflict do nothing
)

-- notify_owners --
ntf as (select pg_notify('payment_outbox', %s))

-- result --
-- Which changes happened, and whether no older event of that payment waits in the outbox (the snapshot is from before
-- this statement, and the version check makes sure that every older change of the payment is in it).
select won.id, won.fresh or not exists (select 1 from payment_service.outbox o where o.payment_id = won.id) from won

-- load --
-- Rows and inbox marks in one snapshot.
select q.position, p.state, p.secrets, p.chain_head, i.command_id is not null
from unnest(%s::int[], %s::text[], %s::text[]) as q(position, payment_id, command_id)
left join payment_service.payments p on p.id = q.payment_id
left join payment_service.inbox i on i.command_id = q.command_id

-- events --
select version, sequence, type, data, hash
from payment_service.payment_events where payment_id = %s order by version

-- history --
-- One row, so that the payment and its events are of one snapshot, also when one of them is missing.
select p.state, p.chain_head, p.version, coalesce(e.versions, '{}'), coalesce(e.sequences, '{}'),
  coalesce(e.types, '{}'), coalesce(e.data, '{}'), coalesce(e.hashes, '{}')
from (select %s::text as id) q
left join payment_service.payments p on p.id = q.id
left join lateral (
  select array_agg(version order by version) as versions, array_agg(sequence order by version) as sequences,
    array_agg(type order by version) as types, array_agg(data order by version) as data,
    array_agg(hash order by version) as hashes
  from payment_service.payment_events where payment_id = q.id
) e on true

-- claim_calls --
-- Whoever comes second skips the rows that are being claimed. Without a request there is nothing to call with: a
-- refund that was made beside us is settled by the provider's word alone.
with due as (
  select id from payment_service.transactions
  where due_at <= now() and request is not null order by due_at limit %s for update skip locked
)
update payment_service.transactions t
set owner = %s, due_at = now() + %s * interval '1 second', tries = t.tries + 1
from due where t.id = due.id
returning t.id, t.request, t.tries - 1

-- renew_call --
update payment_service.transactions set due_at = now() + %s * interval '1 second'
where provider_key = %s and owner = %s and due_at > now() returning id

-- reschedule_call --
-- Not sent: this claim is taken back. An earlier one may have sent it, so it never counts further down.
update payment_service.transactions
set owner = null, due_at = now() + %s * interval '1 second', tries = case when %s then tries else greatest(tries - 1, 0) end
where provider_key = %s and owner = %s and due_at is not null

-- count_workers --
select count(*) from pg_locks
where locktype = 'advisory' and classid = %s::bigint::oid and objid = 0 and objsubid = 2 and granted
  and database = (select oid from pg_database where datname = current_database())

-- outbox_locks --
-- Who holds what of our advisory locks in this database.
select classid::bigint, objid::int, pid = pg_backend_pid() from pg_locks
where locktype = 'advisory' and classid in (%s, %s) and objsubid = 2 and granted
  and database = (select oid from pg_database where datname = current_database())

-- read_outbox --
-- A page of each shard, from the first payment after the one named, so that no page starts in the middle of a payment.
select o.shard, o.payment_id, o.sequence, o.topic, (extract(epoch from o.at) * 1000)::bigint, o.traceparent, o.value
from unnest(%s::smallint[], %s::text[]) as s(shard, after)
cross join lateral (
  select * from payment_service.outbox i
  where i.shard = s.shard and i.payment_id > s.after
  order by i.payment_id, i.sequence limit %s
) o
order by o.shard, o.payment_id, o.sequence

-- delete_outbox --
delete from payment_service.outbox o
using unnest(%s::text[], %s::int[]) as d(payment_id, sequence)
where o.payment_id = d.payment_id and o.sequence = d.sequence

-- outbox_depth --
-- Asked every few seconds, also when there are millions: counts to 50,000.
select count(*), coalesce(extract(epoch from now() - min(at)), 0)
from (select at from payment_service.outbox limit 50000) o

-- keep_dead_letter --
insert into payment_service.dead_letters (topic, partition, "offset", key, value, headers, reason, error)
values (%s, %s, %s, %s, %s, %s, %s, %s)
