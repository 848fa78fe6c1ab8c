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

-- insert_traced_outbox --
-- The same, where a trace goes on with the events of some payments.
outb as (
  insert into payment_service.outbox (shard, payment_id, sequence, topic, at, traceparent, value)
  select e.shard, e.payment_id, e.sequence, e.topic, to_timestamp(e.at_ms::float8 / 1000), t.traceparent,
    convert_to(e.value, 'UTF8')
  from e left join unnest(%s::text[], %s::text[]) as t(payment_id, traceparent) on t.payment_id = e.payment_id
  where e.topic is not null
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
    provider, provider_key, provider_id, request, owner, due_at, tries, created_at, updated_at, moved_minor, sent_at)
  select x.id, x.payment_id, x.number, x.type, x.status, x.amount_minor, x.currency, x.provider, x.provider_key,
    x.provider_id, decode(x.request, 'hex'), x.owner, now() + x.wait_s * interval '1 second', x.tries,
    to_timestamp(x.created_ms::float8 / 1000), to_timestamp(x.updated_ms::float8 / 1000), x.moved_minor,
    case when x.owner is not null then now() end
  from unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[],
    %s::text[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[])
    as x(id, payment_id, number, type, status, amount_minor, currency, provider, provider_key, provider_id, request,
      owner, wait_s, tries, created_ms, updated_ms, moved_minor)
  join won on won.id = x.payment_id
  on conflict (id) do update
  set status = excluded.status, amount_minor = excluded.amount_minor, provider_id = excluded.provider_id,
    updated_at = excluded.updated_at, owner = excluded.owner, due_at = excluded.due_at,
    tries = t.tries + excluded.tries, moved_minor = excluded.moved_minor,
    sent_at = coalesce(t.sent_at, excluded.sent_at),
    request = case when excluded.due_at is null then null else coalesce(t.request, excluded.request) end
)

-- upsert_refunds --
ref as (
  insert into payment_service.refunds (id, payment_id, number, amount_minor, currency, status, reason, provider_id,
    created_at, updated_at, moved_minor)
  select r.id, r.payment_id, r.number, r.amount_minor, r.currency, r.status, r.reason, r.provider_id,
    to_timestamp(r.created_ms::float8 / 1000), to_timestamp(r.updated_ms::float8 / 1000), r.moved_minor
  from unnest(%s::text[], %s::text[], %s::int[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::bigint[], %s::bigint[], %s::bigint[])
    as r(id, payment_id, number, amount_minor, currency, status, reason, provider_id, created_ms, updated_ms,
      moved_minor)
  join won on won.id = r.payment_id
  on conflict (id) do update
  set status = excluded.status, amount_minor = excluded.amount_minor, provider_id = excluded.provider_id,
    updated_at = excluded.updated_at, moved_minor = excluded.moved_minor
)

-- tell_orders --
-- The newest word of each order. One that is being told is left to finish: two at once could arrive the wrong way round.
ord as (
  insert into payment_service.order_updates as u (order_id, payment_id, version, word, reason)
  select o.order_id, o.payment_id, o.version, o.word, o.reason
  from unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::text[])
    as o(order_id, payment_id, version, word, reason)
  join won on won.id = o.payment_id
  on conflict (order_id) do update
  set version = excluded.version, word = excluded.word, reason = excluded.reason, tries = 0,
    due_at = case when u.claim is null then now() else u.due_at end
  where u.version < excluded.version
)

-- mark_unchanged --
-- Commands that changed nothing are marked too: sent again later, they must still change nothing.
mark as (
  insert into payment_service.inbox (command_id, payment_id)
  select * from unnest(%s::text[], %s::text[]) on conflict do nothing
)

-- insert_keys --
-- As in the inbox: the same key for two payments must fail, not be passed over.
ikey as (
  insert into payment_service.idempotency_keys (command_id, payment_id, fingerprint, subject, version, answered)
  select k.command_id, k.payment_id, k.fingerprint, k.subject, k.version, k.answered <> 0
  from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::int[])
    as k(command_id, payment_id, fingerprint, subject, version, answered)
  join won on won.id = k.payment_id
)

-- mark_keys --
mkey as (
  insert into payment_service.idempotency_keys (command_id, payment_id, fingerprint, subject, version, answered)
  select k.command_id, k.payment_id, k.fingerprint, k.subject, k.version, k.answered <> 0
  from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::int[])
    as k(command_id, payment_id, fingerprint, subject, version, answered)
  on conflict do nothing
)

-- bind_keys_again --
-- Keys that were free again: what they had started was certainly never sent. `idle`: nothing was started this time.
akey as (
  update payment_service.idempotency_keys k
  set subject = r.subject, version = r.version, answered = r.answered <> 0, created_at = now()
  from unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::int[], %s::text[], %s::int[])
    as r(command_id, payment_id, subject, version, answered, freed, idle)
  where k.command_id = r.command_id and k.subject = r.freed and not k.answered
    and (r.idle <> 0 or exists (select from won where won.id = r.payment_id))
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

-- load_with_keys --
-- The same for a batch in which some command ids are made of Idempotency-Keys.
select q.position, p.state, p.secrets, p.chain_head, i.command_id is not null, k.fingerprint, k.subject, k.version,
  k.answered, k.answer, extract(epoch from now() - k.created_at)::float8
from unnest(%s::int[], %s::text[], %s::text[]) as q(position, payment_id, command_id)
left join payment_service.payments p on p.id = q.payment_id
left join payment_service.inbox i on i.command_id = q.command_id
left join payment_service.idempotency_keys k on k.command_id = q.command_id

-- keep_answers --
-- The first answer stays. Only while the key is bound to what the answer is about.
update payment_service.idempotency_keys k
set answered = true, answer = coalesce(k.answer, decode(f.answer, 'hex'))
from unnest(%s::text[], %s::text[], %s::text[]) as f(command_id, subject, answer)
where k.command_id = f.command_id and k.subject = f.subject
returning k.command_id, k.answer

-- find_key --
select fingerprint, subject, version, answered, answer, extract(epoch from now() - created_at)::float8
from payment_service.idempotency_keys where command_id = %s

-- keep_unbound --
insert into payment_service.idempotency_keys (command_id, payment_id, fingerprint, subject, version, answered, answer)
values (%s, %s, %s, %s, 0, true, decode(%s, 'hex')) on conflict do nothing
returning command_id

-- end_session --
-- Twice is once.
insert into payment_service.ended_sessions (session, ends_at) values (%s, to_timestamp(%s::float8))
on conflict (session) do nothing returning session

-- ended_sessions --
with over as (delete from payment_service.ended_sessions where ends_at <= now())
select session from payment_service.ended_sessions where ends_at > now() order by ends_at desc limit %s

-- remove_old_keys --
-- What another worker removes, or what is being bound again, is left to it.
with old as (
  select command_id from payment_service.idempotency_keys
  where created_at < now() - %s * interval '1 second' order by created_at limit %s for update skip locked
)
delete from payment_service.idempotency_keys k using old where k.command_id = old.command_id returning k.command_id

-- remove_old_marks --
with old as (
  select command_id from payment_service.inbox
  where created_at < now() - %s * interval '1 second' order by created_at limit %s for update skip locked
)
delete from payment_service.inbox i using old where i.command_id = old.command_id returning i.command_id

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
set owner = %s, due_at = now() + %s * interval '1 second', tries = t.tries + 1,
  sent_at = coalesce(t.sent_at, case when t.tries > 0 then t.created_at else now() end)
from due where t.id = due.id
returning t.id, t.request, t.tries - 1, extract(epoch from now() - t.sent_at)::float8, null::float8

-- claim_calls_of --
-- Of one payment, before their time too; not what somebody has under way, and not what was certainly never sent.
with chosen as (
  select id, due_at from payment_service.transactions
  where payment_id = %s and due_at is not null and request is not null and tries > 0 and (owner is null or due_at <= now())
  order by number limit %s for update skip locked
)
update payment_service.transactions t
set owner = %s, due_at = now() + %s * interval '1 second', sent_at = coalesce(t.sent_at, t.created_at)
from chosen where t.id = chosen.id
returning t.id, t.request, t.tries, extract(epoch from now() - t.sent_at)::float8,
  greatest(extract(epoch from chosen.due_at - now()), 0)::float8

-- give_back_calls --
-- As before this claim, which could not read them.
update payment_service.transactions
set owner = null, due_at = now() + %s * interval '1 second', tries = greatest(tries - 1, 0),
  sent_at = case when tries > 1 then sent_at end
where id = any(%s) and owner = %s and due_at is not null

-- call_under_way --
select extract(epoch from due_at - now())::float8 from payment_service.transactions
where provider_key = %s and owner is not null and due_at > now()

-- open_calls --
-- Oldest first, as far as the page goes; the index of what is due holds the open ones alone.
select id, payment_id, type, status, amount_minor, currency, provider, owner, tries,
  (extract(epoch from created_at) * 1000)::bigint, (extract(epoch from sent_at) * 1000)::bigint,
  extract(epoch from due_at - now())::float8
from payment_service.transactions where due_at is not null order by created_at limit %s

-- scheduled_due --
select count(*) from (select 1 from payment_service.transactions where due_at <= now() and tries = 0 limit %s) d

-- open_by_age --
select status, case when age < 60 then '1m' when age < 600 then '10m' when age < 3600 then '1h'
  when age < 86400 then '1d' else 'older' end, count(*)
from (
  select status, extract(epoch from now() - created_at) as age
  from payment_service.transactions where due_at is not null limit %s
) o group by 1, 2

-- review_and_overdue --
select (select count(*) from (select 1 from payment_service.payments where needs_review limit %s) r),
  coalesce((select greatest(extract(epoch from now() - due_at), 0)::float8 from payment_service.transactions
    where due_at is not null order by due_at limit 1), 0)

-- changed_payments --
-- Not the last seconds: what is being committed just now would be passed over.
select payment_id, extract(epoch from max(updated_at))::float8 from (
  select payment_id, updated_at from payment_service.transactions
  where updated_at > coalesce(to_timestamp(%s::float8), now() - interval '1 minute')
    and updated_at <= now() - interval '5 seconds'
  order by updated_at limit %s
) c group by payment_id

-- changed_calls --
-- The same, call by call.
select payment_id, extract(epoch from updated_at)::float8 from payment_service.transactions
where updated_at > coalesce(to_timestamp(%s::float8), now() - interval '1 minute')
  and updated_at <= now() - interval '5 seconds'
order by updated_at limit %s

-- payments_after --
select id from payment_service.payments where id > %s order by id limit %s

-- money_differences --
-- By currency: which payments differ, and by how much. Rows of older workers say only what was asked.
select currency, array_agg(id) filter (where difference <> 0), array_agg(difference) filter (where difference <> 0)
from (
  select p.id, p.currency, (p.captured - p.refunded - coalesce((
    select sum(coalesce(t.moved_minor, case when t.status = 'SUCCEEDED' then t.amount_minor else 0 end))
    from payment_service.transactions t where t.payment_id = p.id and t.type in ('CHARGE', 'CAPTURE')
  ), 0) + coalesce((
    select sum(coalesce(r.moved_minor, case when r.status = 'COMPLETED' then r.amount_minor else 0 end))
    from payment_service.refunds r where r.payment_id = p.id
  ), 0))::bigint as difference
  from unnest(%s::text[]) as q(id) join payment_service.payments p on p.id = q.id
  offset 0 -- else the difference is added up once for each place that names it
) d where currency <> '' group by currency

-- hurry_calls --
-- What somebody has under way keeps its lease.
with waiting as (
  select id from payment_service.transactions
  where due_at > now() and owner is null and request is not null order by due_at limit %s for update skip locked
)
update payment_service.transactions t set due_at = now() from waiting where t.id = waiting.id returning t.id

-- renew_calls --
-- A row that is locked is being settled or given back by somebody: then it is not ours, and nobody waits.
with ours as (
  select t.id, c.owner, c.lease_s
  from unnest(%s::text[], %s::text[], %s::float8[]) as c(provider_key, owner, lease_s)
  join payment_service.transactions t on t.provider_key = c.provider_key and t.owner = c.owner
  where t.due_at > now() for update of t skip locked
)
update payment_service.transactions t set due_at = now() + ours.lease_s * interval '1 second'
from ours where t.id = ours.id returning t.provider_key, ours.owner

-- reschedule_calls --
-- Not sent: this claim is taken back. An earlier one may have sent it, so it never counts further down.
with ours as (
  select t.id, c.owner, c.delay_s, c.sent
  from unnest(%s::text[], %s::text[], %s::float8[], %s::boolean[]) as c(provider_key, owner, delay_s, sent)
  join payment_service.transactions t on t.provider_key = c.provider_key and t.owner = c.owner
  where t.due_at is not null for update of t skip locked
)
update payment_service.transactions t
set owner = null, due_at = now() + ours.delay_s * interval '1 second',
  tries = case when ours.sent then t.tries else greatest(t.tries - 1, 0) end,
  sent_at = case when ours.sent or t.tries > 1 then t.sent_at end
from ours where t.id = ours.id returning t.provider_key, ours.owner

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
insert into payment_service.dead_letters (topic, partition, "offset", key, value, headers, reason, error, sealed)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)

-- write_audit --
-- A plain insert, which costs less than one that minds conflicts: whole or not at all, and nobody else has the numbers.
insert into payment_service.audit_log (chain, number, entry, hash)
select %s, %s + w.position, w.entry::json, decode(w.hash, 'hex')
from unnest(string_to_array(%s, chr(30)), %s::text[]) with ordinality as w(entry, hash, position)

-- audit_page --
select chain, number, entry::text, hash from payment_service.audit_log
where (chain, number) > (%s, %s) order by chain, number limit %s

-- audit_of_commands --
-- How far the chain of each command has come that wrote something since a time.
select distinct on (chain) chain, number, hash from payment_service.audit_log
where starts_with(chain, 'cli:') and entry ->> 'at' > %s order by chain, number desc limit %s

-- audit_newest --
select chain, number, entry::text from payment_service.audit_log order by entry ->> 'at' desc limit %s

-- audit_of_payment --
-- All of the payment's first: PostgreSQL takes them for many, and would look for the newest through the whole log.
with found as materialized (
  select chain, number, entry from payment_service.audit_log where entry ->> 'paymentId' = %s
)
select chain, number, entry::text from found order by entry ->> 'at' desc limit %s

-- sizes --
-- Estimates, for a progress bar: -1 where nobody counted yet.
select (select reltuples::bigint from pg_class where oid = 'payment_service.payments'::regclass),
  (select reltuples::bigint from pg_class where oid = 'payment_service.audit_log'::regclass)

-- histories --
-- The histories of the payments after one, in order of their ids: those with a row, with events, or with both. Each
-- with its row in one snapshot.
select q.id, p.state, p.chain_head, p.version, coalesce(e.versions, '{}'), coalesce(e.sequences, '{}'),
  coalesce(e.types, '{}'), coalesce(e.data, '{}'), coalesce(e.hashes, '{}')
from (
  (select id from payment_service.payments where id > %s order by id limit %s)
  union
  (select distinct payment_id from payment_service.payment_events where payment_id > %s order by payment_id limit %s)
  order by id limit %s
) q
left join payment_service.payments p on p.id = q.id
left join lateral (
  select array_agg(version order by version) as versions, array_agg(sequence order by version) as sequences,
    array_agg(type order by version) as types, array_agg(data order by version) as data,
    array_agg(hash order by version) as hashes
  from payment_service.payment_events where payment_id = q.id
) e on true
order by q.id

-- published_between --
-- Found by time: events are only ever added. `limit` null: all of them.
select distinct payment_id from payment_service.payment_events
where sequence is not null and at >= to_timestamp(%s::float8 / 1000) and at < to_timestamp(%s::float8 / 1000)
limit %s

-- unsettled_payments --
-- The index of what is due holds the open calls alone.
select distinct payment_id from payment_service.transactions
where due_at is not null and payment_id > %s order by payment_id limit %s

-- histories_of --
select payment_id, array_agg(version order by version), array_agg(sequence order by version),
  array_agg(type order by version), array_agg(data order by version)
from payment_service.payment_events where payment_id = any(%s) group by payment_id

-- page_of_dead_letters --
select id, topic, partition, "offset", key, value, headers, reason, error, sealed,
  (extract(epoch from created_at) * 1000)::bigint
from payment_service.dead_letters where id > %s order by id limit %s

-- replays --
select letter, (extract(epoch from sent_at) * 1000)::bigint
from payment_service.dead_letter_replays where letter = any(%s)

-- claim_replays --
-- A claim that was not sent in time belongs to nobody any more. `again`: also what was sent before.
insert into payment_service.dead_letter_replays as r (letter, source, operator, claimed_at)
select c.letter, c.source, %s, now() from unnest(%s::text[], %s::text[]) as c(letter, source)
on conflict (letter) do update set operator = excluded.operator, claimed_at = excluded.claimed_at, sent_at = null
where (r.sent_at is null and r.claimed_at < now() - %s * interval '1 second') or (r.sent_at is not null and %s)
returning letter

-- replays_sent --
update payment_service.dead_letter_replays set sent_at = now() where letter = any(%s)

-- replays_given_up --
delete from payment_service.dead_letter_replays where letter = any(%s) and sent_at is null

-- keep_webhooks --
-- An event that came by two ways, or twice, is one: its provider and id say so.
insert into payment_service.payment_webhooks (provider, event_id, type, payment_id, object_id, body, created_at,
  received_at)
select w.provider, w.event_id, w.type, w.payment_id, w.object_id, decode(w.body, 'hex'),
  to_timestamp(w.created_ms::float8 / 1000), to_timestamp(w.received_ms::float8 / 1000)
from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[])
  as w(provider, event_id, type, payment_id, object_id, body, created_ms, received_ms)
on conflict (provider, event_id) do nothing
returning provider, event_id

-- claim_webhooks --
with due as (
  select id from payment_service.payment_webhooks where due_at <= now() order by due_at limit %s for update skip locked
)
update payment_service.payment_webhooks w
set due_at = now() + %s * interval '1 second', tries = w.tries + 1, updated_at = now()
from due where w.id = due.id
returning w.id, w.provider, w.event_id, w.type, w.payment_id, w.object_id, w.body,
  (extract(epoch from w.created_at) * 1000)::bigint, (extract(epoch from w.received_at) * 1000)::bigint, w.tries,
  extract(epoch from now() - w.since)::float8

-- settle_webhook --
update payment_service.payment_webhooks
set status = %s, reason = %s, payment_id = coalesce(%s, payment_id), due_at = now() + %s * interval '1 second',
  updated_at = now()
where id = %s and tries = %s

-- payment_of_provider_ids --
select distinct payment_id from payment_service.transactions where provider_id = any(%s) and provider = %s limit 2

-- payments_of_provider_id --
-- For a person: of a movement, or of the provider's object, which its webhooks have told us.
select payment_id from payment_service.transactions where provider_id = %s
union
select payment_id from payment_service.payment_webhooks where object_id = %s and payment_id is not null
limit %s

-- webhooks_waiting --
-- Asked twice a minute, also when there are millions: counts to 50,000 each.
select status, count(*), coalesce(extract(epoch from now() - min(since)), 0)::float8 from (
  (select status, since from payment_service.payment_webhooks where due_at is not null limit 50000)
  union all
  (select status, since from payment_service.payment_webhooks where status = 'FAILED' limit 50000)
) w group by status

-- remove_old_webhooks --
-- Only among the oldest rows: where none is old, nothing further is read. `due_at` twice: one that is replayed in this
-- moment stays.
delete from payment_service.payment_webhooks where due_at is null and id in (
  select id from (
    select id, due_at, received_at from payment_service.payment_webhooks order by id limit %s
  ) oldest where due_at is null and received_at < now() - %s * interval '1 second'
) returning id

-- list_webhooks --
select id, provider, event_id, type, status, reason, payment_id, object_id, tries,
  (extract(epoch from received_at) * 1000)::bigint, (extract(epoch from updated_at) * 1000)::bigint
from payment_service.payment_webhooks
where (%s::text is null or status = %s) and (%s::text is null or provider = %s) and (%s::bigint is null or id = %s)
order by id desc limit %s

-- replay_webhooks --
-- A claim that is under way is fenced off by `tries`; what it did is known by the inbox. In pages, by id.
with page as (
  select id from payment_service.payment_webhooks
  where id > %s and (%s::text is null or status = %s) and (%s::bigint is null or id = %s) order by id limit %s
)
update payment_service.payment_webhooks w
set status = 'RECEIVED', reason = 'REPLAYED', due_at = now(), since = now(), tries = w.tries + 1, updated_at = now()
from page where w.id = page.id
returning w.id

-- claim_order_updates --
-- A claim that was never settled may have told its word, and its request may still arrive.
with due as (
  select order_id from payment_service.order_updates
  where due_at <= now() order by due_at limit %s for update skip locked
)
update payment_service.order_updates u
set claim = %s, due_at = now() + %s * interval '1 second', tries = u.tries + 1, late = u.late or u.claim is not null
from due where u.order_id = due.order_id
returning u.order_id, u.payment_id, u.version, u.word, u.reason, u.tries

-- order_told --
delete from payment_service.order_updates where order_id = %s and claim = %s and version = %s and not late
returning order_id

-- order_told_and_stays --
-- A newer word came meanwhile, or this one is told once more.
update payment_service.order_updates u
set claim = null, tries = 0, problem = '', late = u.late and u.version <> t.version,
  due_at = case when u.version = t.version then now() + t.repeat_s * interval '1 second' else now() end
from (select %s::int as version, %s::float8 as repeat_s) t
where u.order_id = %s and u.claim = %s

-- order_not_told --
update payment_service.order_updates u
set claim = null, problem = t.problem, late = u.late or t.late,
  due_at = case when u.version = t.version then now() + t.delay_s * interval '1 second' else now() end
from (select %s::int as version, %s::float8 as delay_s, %s::text as problem, %s::boolean as late) t
where u.order_id = %s and u.claim = %s

-- order_updates_waiting --
-- Asked twice a minute, also when there are millions: counts to 50,000.
select split_part(problem, ':', 1), count(*), coalesce(extract(epoch from now() - min(since)), 0)::float8
from (select problem, since from payment_service.order_updates limit 50000) u group by 1

-- lock_user_methods --
-- Limit and default are per user: whoever changes them for one user waits for the other. Released with the commit of
-- the message it is sent in, and before the snapshot of the statement that follows it.
select pg_advisory_xact_lock(hashtextextended('payment_methods:' || %s, 0));

-- method_columns --
-- What the others give back, in this order.
m.id, m.user_id, m.provider, m.type, m.status, (extract(epoch from m.created_at) * 1000)::bigint, m.is_default,
  m.wants_default, m.brand, m.last4, m.exp_month, m.exp_year, m.tries, m.secrets

-- begin_method --
with there as (
  select id from payment_service.payment_methods
  where user_id = %s and provider = %s and given_digest = %s and status <> 'REMOVED'
), made as (
  insert into payment_service.payment_methods as m (id, user_id, provider, type, status, wants_default,
    given_digest, secrets, created_at, due_at)
  select %s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0), now() + %s * interval '1 second'
  where not exists (select from there)
    and (select count(*) from payment_service.payment_methods where user_id = %s and status <> 'REMOVED') < %s
  returning {columns}
)
select * from made union all
select {columns} from payment_service.payment_methods m where m.id = (select id from there)

-- settle_method --
-- The filter on `cleared` makes it run first: two defaults are refused row by row.
with target as (
  select id, user_id, wants_default and %s = 'ACTIVE' as becomes_default from payment_service.payment_methods
  where id = %s and status in ('PENDING', 'REQUIRES_ACTION')
), cleared as (
  update payment_service.payment_methods m set is_default = false, updated_at = now() from target t
  where t.becomes_default and m.user_id = t.user_id and m.is_default and m.id <> t.id
  returning 1
)
update payment_service.payment_methods m
set status = %s, is_default = t.becomes_default, wants_default = m.wants_default and not t.becomes_default,
  brand = %s, last4 = %s, exp_month = %s, exp_year = %s, token_digest = %s, secrets = %s,
  due_at = now() + %s * interval '1 second', tries = 0, updated_at = now()
from target t where m.id = t.id and (select count(*) from cleared) >= 0
returning {columns}

-- list_methods --
select {columns} from payment_service.payment_methods m where user_id = %s and status <> 'REMOVED'
order by is_default desc, created_at desc, id limit %s

-- find_method --
select {columns} from payment_service.payment_methods m where id = %s and user_id = %s and status <> 'REMOVED'

-- usable_methods --
-- Of many users at once: the orders of a busy stream. Without an id it is the default.
select asked.user_id, asked.id, m.id, m.provider, m.secrets
from unnest(%s::text[], %s::text[]) asked (user_id, id)
join payment_service.payment_methods m on m.id = asked.id and m.user_id = asked.user_id
where asked.id is not null and m.status = 'ACTIVE'
union all
select asked.user_id, null, m.id, m.provider, m.secrets
from unnest(%s::text[], %s::text[]) asked (user_id, id)
join payment_service.payment_methods m on m.user_id = asked.user_id and m.is_default
where asked.id is null and m.status = 'ACTIVE'

-- set_default_method --
with target as (
  select id, user_id from payment_service.payment_methods where id = %s and user_id = %s and status = 'ACTIVE'
), cleared as (
  update payment_service.payment_methods m set is_default = false, updated_at = now() from target t
  where m.user_id = t.user_id and m.is_default and m.id <> t.id
  returning 1
)
update payment_service.payment_methods m set is_default = true, updated_at = now()
from target t where m.id = t.id and (select count(*) from cleared) >= 0
returning {columns}

-- remove_method --
-- Sent again because its connection broke, it also finds what it has removed itself.
update payment_service.payment_methods
set status = 'REMOVED', is_default = false, wants_default = false, due_at = now(), tries = 0, updated_at = now()
where id = %s and user_id = %s and (status in ('ACTIVE', 'REQUIRES_ACTION') or (status = 'REMOVED' and %s))
returning id

-- forget_method --
delete from payment_service.payment_methods where id = %s and status = %s returning id

-- claim_methods --
with due as (
  select id from payment_service.payment_methods where due_at <= now() order by due_at limit %s for update skip locked
)
update payment_service.payment_methods m
set due_at = now() + %s * interval '1 second', tries = m.tries + 1 from due where m.id = due.id
returning {columns}

-- postpone_method --
update payment_service.payment_methods set due_at = now() + %s * interval '1 second'
where id = %s and status = %s and tries = %s returning id

-- detached_methods --
delete from payment_service.payment_methods where token_digest = %s and provider = %s returning id

-- change_cards --
update payment_service.payment_methods
set brand = coalesce(%s, brand), last4 = coalesce(%s, last4), exp_month = coalesce(%s, exp_month),
  exp_year = coalesce(%s, exp_year), updated_at = now()
where token_digest = %s and provider = %s returning id

-- customer_of --
select customer from payment_service.provider_customers where user_id = %s and provider = %s

-- keep_customer --
insert into payment_service.provider_customers (user_id, provider, customer) values (%s, %s, %s)
on conflict (user_id, provider) do update set customer = excluded.customer, updated_at = now()
returning user_id

-- find_legacy --
select payment_id, document from payment_service.legacy_payments where id = %s

-- known_legacy --
select id from payment_service.legacy_payments where id = any(%s)

-- keep_legacy --
insert into payment_service.legacy_payments (id, payment_id, document)
select * from unnest(%s::text[], %s::text[], %s::text[]) on conflict do nothing

-- arm_legacy_calls --
-- Calls of the old service that nobody knows the end of: looked up, and never sent, since they may have been sent long
-- ago. Without a request nobody looks: a person decides.
update payment_service.transactions t
set request = decode(a.request, 'hex'), tries = 1, owner = null,
  due_at = case when a.request is null then null else to_timestamp(a.due_ms::float8 / 1000) end,
  sent_at = least(t.created_at, now() - interval '1 day')
from unnest(%s::text[], %s::text[], %s::bigint[]) as a(id, request, due_ms)
where t.id = a.id and t.request is null and t.status in ('PENDING', 'UNKNOWN')

-- import_method --
insert into payment_service.payment_methods (id, user_id, provider, type, status, is_default, brand, last4, exp_month,
  exp_year, given_digest, token_digest, secrets, created_at)
select %s, %s, %s, %s, 'ACTIVE', %s and not exists (
    select from payment_service.payment_methods where user_id = %s and is_default),
  %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0)
on conflict do nothing returning 1

-- import_webhook --
insert into payment_service.payment_webhooks (provider, event_id, type, status, reason, body, created_at, received_at,
  due_at)
select %s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0), to_timestamp(%s / 1000.0),
  case when %s then now() end
on conflict do nothing returning 1

-- legacy_tables --
-- A table `payments` of somebody else has no "orderId".
select count(*) from information_schema.columns where table_schema = %s and (table_name, column_name) in (
  ('payments', 'orderId'), ('payment_transactions', 'transactionType'), ('refunds', 'providerRefundId'),
  ('payment_methods', 'providerToken'), ('payment_webhooks', 'providerEventId'))

-- legacy_sizes --
select (select count(*) from {schema}.payments), (select count(*) from {schema}.payment_methods),
  (select count(*) from {schema}.payment_webhooks where "createdAt" > now() - %s * interval '1 day')

-- legacy_orders --
select distinct "orderId" from {schema}.payments where "orderId" > %s order by 1 limit %s

-- legacy_payments --
select id, "orderId", "userId", "paymentMethodId", status::text, "paymentProvider"::text, "providerPaymentId", amount,
  currency, description, metadata, (extract(epoch from "createdAt") * 1000)::bigint,
  (extract(epoch from "updatedAt") * 1000)::bigint
from {schema}.payments where "orderId" = any(%s) order by "createdAt", id

-- legacy_calls --
select "paymentId", "transactionType"::text, status::text, amount, currency, "providerTransactionId",
  (extract(epoch from "createdAt") * 1000)::bigint
from {schema}.payment_transactions where "paymentId" = any(%s) order by "createdAt", id

-- legacy_refunds --
select "paymentId", id, status::text, amount, currency, reason, "providerRefundId",
  (extract(epoch from "createdAt") * 1000)::bigint, (extract(epoch from "updatedAt") * 1000)::bigint
from {schema}.refunds where "paymentId" = any(%s) order by "createdAt", id

-- legacy_methods --
select id, "userId", type::text, provider::text, "providerToken", last4, "cardType", "expiryMonth", "expiryYear",
  "isDefault", (extract(epoch from "createdAt") * 1000)::bigint
from {schema}.payment_methods where id > %s order by id limit %s

-- legacy_webhooks --
-- Older ones would leave at once by their age.
select id, provider::text, "eventType", "providerEventId", payload::text, status::text,
  (extract(epoch from "createdAt") * 1000)::bigint
from {schema}.payment_webhooks where id > %s and "createdAt" > now() - %s * interval '1 day' order by id limit %s

-- put_into_outbox --
-- Events that were published before. What waits there is left as it is. The owners of the shards look each second.
insert into payment_service.outbox (shard, payment_id, sequence, topic, at, value)
select shard, payment_id, sequence, topic, to_timestamp(at_ms::float8 / 1000), convert_to(value, 'UTF8')
from unnest(%s::int[], %s::text[], %s::int[], %s::text[], %s::bigint[], string_to_array(%s, chr(30)))
  as o(shard, payment_id, sequence, topic, at_ms, value)
on conflict do nothing returning 1

-- look_at_server --
select current_setting('server_version_num')::int, current_setting('fsync') = 'on',
  current_setting('full_page_writes') = 'on', current_setting('server_encoding'),
  pg_is_in_recovery() or current_setting('default_transaction_read_only') = 'on',
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
  (select count(*) from pg_stat_activity where backend_type = 'client backend'),
  (extract(epoch from clock_timestamp()) * 1000)::bigint, current_user::text,
  (select rolsuper or rolbypassrls from pg_roles where rolname = current_user)

-- look_at_rights --
-- What the role of DATABASE_URL may do with each table; `kept`: append-only, by its trigger or by its meaning.
select c.relname::text, kept.it, has_table_privilege(c.oid, 'select'), has_table_privilege(c.oid, 'insert'),
  has_table_privilege(c.oid, 'update'), has_table_privilege(c.oid, 'delete'), has_table_privilege(c.oid, 'truncate'),
  pg_has_role(current_user, c.relowner, 'member')
from pg_class c join pg_namespace n on n.oid = c.relnamespace,
  lateral (select exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'append_only') as it) kept
where n.nspname = 'payment_service' and c.relkind in ('r', 'p') order by 1

-- look_at_work --
-- What waits, counted to 10,000 each, and since when. Locks of the second key 0 count the workers that publish.
select
  (select count(*) from pg_locks l join pg_database d on d.oid = l.database
    where d.datname = current_database() and l.locktype = 'advisory' and l.classid = %s and l.objid = 0 and l.granted),
  (select count(*) from (select 1 from payment_service.outbox limit 10000) o),
  coalesce((select extract(epoch from now() - min(at)) from payment_service.outbox), 0)::float8,
  coalesce((select extract(epoch from now() - min(due_at)) from payment_service.transactions
    where due_at is not null), 0)::float8,
  (select count(*) from (select 1 from payment_service.transactions
    where due_at is not null and status = 'UNKNOWN' and created_at < now() - interval '10 minutes' limit 10000) u),
  (select count(*) from (select 1 from payment_service.payments where needs_review limit 10000) r),
  (select count(*) from (select 1 from payment_service.payment_webhooks where status = 'FAILED' limit 10000) f),
  (select count(*) from (select 1 from payment_service.payment_webhooks
    where status = 'PARKED' and since < now() - interval '15 minutes' limit 10000) p),
  coalesce((select extract(epoch from now() - min(since)) from payment_service.order_updates), 0)::float8

-- newest_sealed --
select t.{column}, {place} from payment_service.{table} t
where t.{column} is not null and octet_length(t.{column}) > 0 and {sealed} order by t.ctid desc limit %s

-- sealed_blocks --
select pg_relation_size('payment_service.{table}') / current_setting('block_size')::int

-- scan_sealed --
-- In the order in which a table is stored: no index, and of large values only their first bytes are read.
select t.ctid::text, octet_length(t.{column}) from payment_service.{table} t
where t.ctid >= %s::tid and t.ctid < %s::tid and {sealed} and substring(t.{column} from 1 for 5) <> %s

-- read_sealed --
select t.ctid::text, t.{column}, {place} from payment_service.{table} t where t.ctid = any(%s::tid[]) and {sealed}

-- reseal --
-- Only what still begins as it was read, and what nobody is changing: a worker never waits for this, nor loses a change.
with new as (
  select n.at, decode(n.stamp, 'hex') as stamp, decode(n.value, 'hex') as value
  from unnest(%s::tid[], %s::text[], %s::text[]) as n(at, stamp, value)
), free as (
  select t.ctid as at, new.value from new join payment_service.{table} t on t.ctid = new.at
  where substring(t.{column} from 1 for 17) = new.stamp for update of t skip locked
)
update payment_service.{table} t set {column} = free.value from free where t.ctid = free.at
returning 1
