-- pre-deploy. Creates everything anew; takes no lock that anybody waits for.
create schema if not exists payment_service;

create table payment_service.payments (
  id              text primary key,
  order_id        text not null unique,
  user_id         text not null,
  status          text not null,
  provider        text not null,
  amount_minor    bigint not null,
  currency        text not null,
  authorized      bigint not null,
  captured        bigint not null,
  refund_pending  bigint not null,
  refunded        bigint not null,
  disputed        bigint not null,
  needs_review    boolean not null,
  version         integer not null,
  sequence        integer not null,
  state           text not null,
  secrets         bytea,
  chain_head      bytea not null,
  created_at      timestamptz not null,
  updated_at      timestamptz not null
) with (fillfactor = 80);
comment on table payment_service.payments is 'A fold of payment_events; the columns serve queries, state is read back. No CHECK on amounts: a provider may have moved more than we asked.';
create index payments_by_user on payment_service.payments (user_id, created_at desc, id);
create index payments_by_time on payment_service.payments (created_at desc, id);
create index payments_to_review on payment_service.payments (updated_at) where needs_review;

create table payment_service.payment_events (
  payment_id  text not null,
  version     integer not null,
  sequence    integer,
  type        text not null,
  at          timestamptz not null,
  data        bytea not null,
  hash        bytea not null,
  primary key (payment_id, version)
);
comment on table payment_service.payment_events is 'Append only. hash = HMAC(key outside the database, hash of the version before || payment || version || sequence || type || data).';

create table payment_service.transactions (
  id            text primary key,
  payment_id    text not null,
  number        integer not null,
  type          text not null,
  status        text not null,
  amount_minor  bigint not null,
  currency      text not null,
  provider      text not null,
  provider_key  text not null unique,
  provider_id   text,
  request       bytea,
  owner         text,
  due_at        timestamptz,
  tries         integer not null default 0,
  created_at    timestamptz not null,
  updated_at    timestamptz not null
) with (fillfactor = 70);
comment on column payment_service.transactions.request is 'The exact request, sealed; emptied when the attempt is settled.';
comment on column payment_service.transactions.due_at is 'When somebody must look at it: the end of the owner''s lease, or the time of a scheduled call or look-up. Null when settled.';
create index transactions_by_payment on payment_service.transactions (payment_id, number);
create index transactions_due on payment_service.transactions (due_at) where due_at is not null;

create table payment_service.refunds (
  id            text primary key,
  payment_id    text not null,
  number        integer not null,
  amount_minor  bigint not null,
  currency      text not null,
  status        text not null,
  reason        text,
  provider_id   text,
  created_at    timestamptz not null,
  updated_at    timestamptz not null
);
create index refunds_by_payment on payment_service.refunds (payment_id, number);

create table payment_service.inbox (
  command_id  text primary key,
  payment_id  text not null,
  created_at  timestamptz not null default now()
);
comment on table payment_service.inbox is 'Commands that were carried out. Never partitioned: the key must stay unique over all of it.';
create index inbox_by_age on payment_service.inbox using brin (created_at);

create table payment_service.outbox (
  shard        smallint not null,
  payment_id   text not null,
  sequence     integer not null,
  topic        text not null,
  at           timestamptz not null,
  traceparent  text,
  value        bytea not null,
  primary key (payment_id, sequence)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on table payment_service.outbox is 'Published events without the broker''s ack. A row leaves only after it.';
create index outbox_by_shard on payment_service.outbox (shard, payment_id, sequence);

create table payment_service.dead_letters (
  id          bigint generated always as identity primary key,
  topic       text not null,
  partition   integer not null,
  "offset"    bigint not null,
  key         bytea,
  value       bytea,
  headers     jsonb not null,
  reason      text not null,
  error       text not null,
  created_at  timestamptz not null default now()
);
comment on table payment_service.dead_letters is 'Dead letters that do not fit into a message of the broker.';

create function payment_service.refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'payment_service.% is append-only', tg_table_name using errcode = 'insufficient_privilege';
end $$;
create trigger append_only before update or delete on payment_service.payment_events
  for each row execute function payment_service.refuse_change();
create trigger append_only_truncate before truncate on payment_service.payment_events
  for each statement execute function payment_service.refuse_change();
