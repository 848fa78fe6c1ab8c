-- Every statement of the service, by name (queries.py). Arrays of one statement belong together by position.

-- changes --
-- The changes of many payments: `expected` is the version each was decided on, 0 for a payment that must not exist.
c as (
  select * from unnest(
    %s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::bigint[],
    %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::boolean[], %s::int[], %s::int[], %s::text[],
    %s::text[], %s::boolean[], %s::text[], %s::bigint[], %s::bigint[]
  ) as t(id, expected, order_id, user_id, status, provider, amount_minor, currency, authorized, captured,
    refund_pending, refunded, disputed, needs_review, version, sequence, state, secrets, keep_secrets, chain_head,
    created_ms, updated_ms)
)

-- insert_payments --
ins as (
  insert into payment_service.payments (id, order_id, user_id, status, provider, amount_minor, currency, authorized,
    captured, refund_pending, refunded, disputed, needs_review, version, sequence, state, secrets, chain_head,
    created_at, updated_at)
  select id, order_id, user_id, status, provider, amount_minor, currency, authorized, captured, refund_pending,
    refunded, disputed, needs_review, version, sequence, convert_from(decode(state, 'hex'), 'UTF8'),
    decode(secrets, 'hex'), decode(chain_head, 'hex'), to_timestamp(created_ms / 1000.0),
    to_timestamp(updated_ms / 1000.0)
  from c where expected = 0
  on conflict do nothing
  returning id
)

-- update_payments --
upd as (
  update payment_service.payments p
  set user_id = c.user_id, status = c.status, provider = c.provider, amount_minor = c.amount_minor,
    currency = c.currency, authorized = c.authorized, captured = c.captured, refund_pending = c.refund_pending,
    refunded = c.refunded, disputed = c.disputed, needs_review = c.needs_review, version = c.version,
    sequence = c.sequence, state = convert_from(decode(c.state, 'hex'), 'UTF8'),
    secrets = case when c.keep_secrets then p.secrets else decode(c.secrets, 'hex') end,
    chain_head = decode(c.chain_head, 'hex'), updated_at = to_timestamp(c.updated_ms / 1000.0)
  from c
  where c.expected > 0 and p.id = c.id and p.version = c.expected
  returning p.id
)

-- insert_events --
ev as (
  insert into payment_service.payment_events (payment_id, version, sequence, type, at, data, hash)
  select e.payment_id, e.version, e.sequence, e.type, to_timestamp(e.at_ms / 1000.0), decode(e.data, 'hex'),
    decode(e.hash, 'hex')
  from unnest(%s::text[], %s::int[], %s::int[], %s::text[], %s::bigint[], %s::text[], %s::text[])
    as e(payment_id, version, sequence, type, at_ms, data, hash)
  join won on won.id = e.payment_id
)

-- insert_inbox --
-- A plain insert: the same command id for two payments must fail, not be passed over.
inb as (
  insert into payment_service.inbox (command_id, payment_id)
  select i.command_id, i.payment_id from unnest(%s::text[], %s::text[]) as i(command_id, payment_id)
  join won on won.id = i.payment_id
)

-- insert_outbox --
outb as (
  insert into payment_service.outbox (shard, payment_id, sequence, topic, at, traceparent, value)
  select o.shard, o.payment_id, o.sequence, o.topic, to_timestamp(o.at_ms / 1000.0), null, decode(o.value, 'hex')
  from unnest(%s::int[], %s::text[], %s::int[], %s::text[], %s::bigint[], %s::text[])
    as o(shard, payment_id, sequence, topic, at_ms, value)
  join won on won.id = o.payment_id
)

-- upsert_transactions --
-- `wait_s` null: settled. A request is kept as it was first committed.
tra as (
  insert into payment_service.transactions as t (id, payment_id, number, type, status, amount_minor, currency,
    provider, provider_key, provider_id, request, owner, due_at, created_at, updated_at)
  select x.id, x.payment_id, x.number, x.type, x.status, x.amount_minor, x.currency, x.provider, x.provider_key,
    x.provider_id, decode(x.request, 'hex'), x.owner, now() + x.wait_s * interval '1 second',
    to_timestamp(x.created_ms / 1000.0), to_timestamp(x.updated_ms / 1000.0)
  from unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[],
    %s::text[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::bigint[], %s::bigint[])
    as x(id, payment_id, number, type, status, amount_minor, currency, provider, provider_key, provider_id, request,
      owner, wait_s, created_ms, updated_ms)
  join won on won.id = x.payment_id
  on conflict (id) do update
  set status = excluded.status, amount_minor = excluded.amount_minor, provider_id = excluded.provider_id,
    updated_at = excluded.updated_at, owner = excluded.owner, due_at = excluded.due_at,
    request = case when excluded.due_at is null then null else coalesce(t.request, excluded.request) end
)

-- upsert_refunds --
ref as (
  insert into payment_service.refunds (id, payment_id, number, amount_minor, currency, status, reason, provider_id,
    created_at, updated_at)
  select r.id, r.payment_id, r.number, r.amount_minor, r.currency, r.status, r.reason, r.provider_id,
    to_timestamp(r.created_ms / 1000.0), to_timestamp(r.updated_ms / 1000.0)
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
-- Which changes happened, and whether an older event of that payment still waits in the outbox (the snapshot is from
-- before this statement).
select won.id, exists (select 1 from payment_service.outbox o where o.payment_id = won.id) from won

-- load --
-- Rows and inbox marks in one snapshot.
select q.position, p.state, p.secrets, p.chain_head, i.command_id is not null
from unnest(%s::int[], %s::text[], %s::text[]) as q(position, payment_id, command_id)
left join payment_service.payments p on p.id = q.payment_id
left join payment_service.inbox i on i.command_id = q.command_id

-- events --
select version, sequence, type, data, hash, extract(epoch from at) * 1000
from payment_service.payment_events where payment_id = %s order by version

-- claim_calls --
-- Whoever comes second skips the rows that are being claimed.
with due as (
  select id from payment_service.transactions
  where due_at <= now() order by due_at limit %s for update skip locked
)
update payment_service.transactions t
set owner = %s, due_at = now() + %s * interval '1 second', tries = t.tries + 1
from due where t.id = due.id
returning t.id, t.request, t.tries - 1

-- renew_call --
update payment_service.transactions set due_at = now() + %s * interval '1 second'
where provider_key = %s and owner = %s and due_at > now() returning id

-- reschedule_call --
update payment_service.transactions
set owner = null, due_at = now() + %s * interval '1 second', tries = case when %s then tries else 0 end
where provider_key = %s and owner = %s and due_at is not null

-- count_workers --
select count(*) from pg_locks
where locktype = 'advisory' and classid = %s::bigint::oid and objid = 0 and objsubid = 2 and granted
  and database = (select oid from pg_database where datname = current_database())

-- read_outbox --
select shard, payment_id, sequence, topic, extract(epoch from at) * 1000, traceparent, value
from payment_service.outbox
where shard = any(%s::smallint[]) and (payment_id, sequence) > (%s, %s)
order by payment_id, sequence
limit %s

-- delete_outbox --
delete from payment_service.outbox o
using unnest(%s::text[], %s::int[]) as d(payment_id, sequence)
where o.payment_id = d.payment_id and o.sequence = d.sequence

-- outbox_depth --
select count(*), coalesce(extract(epoch from now() - min(at)), 0) from payment_service.outbox

-- keep_dead_letter --
insert into payment_service.dead_letters (topic, partition, "offset", key, value, headers, reason, error)
values (%s, %s, %s, %s, %s, %s, %s, %s)
