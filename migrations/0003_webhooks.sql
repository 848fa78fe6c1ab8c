-- pre-deploy. One table and one index more. The index on `transactions` is built under a lock that lets nobody write
-- there meanwhile: with many rows, make it beforehand by hand with `create index concurrently if not exists`.
create table payment_service.payment_webhooks (
  id           bigint generated always as identity primary key,
  provider     text not null,
  event_id     text not null,
  type         text not null,
  status       text not null default 'RECEIVED',
  reason       text not null default '',
  payment_id   text,
  object_id    text,
  body         bytea not null,
  created_at   timestamptz not null,
  received_at  timestamptz not null default now(),
  since        timestamptz not null default now(),
  due_at       timestamptz default now(),
  tries        integer not null default 0,
  updated_at   timestamptz not null default now(),
  unique (provider, event_id)
) with (fillfactor = 80);
comment on table payment_service.payment_webhooks is 'Verified events of providers, each once by its provider''s id. Rows leave by age.';
comment on column payment_service.payment_webhooks.body is 'As it came, sealed, with provider and event id bound in.';
comment on column payment_service.payment_webhooks.since is 'When it was received, or replayed: what its waiting is counted from.';
comment on column payment_service.payment_webhooks.due_at is 'When somebody must look at it: at once, after a lease, or after a pause. Null when settled.';
create index payment_webhooks_due on payment_service.payment_webhooks (due_at) where due_at is not null;
create index payment_webhooks_to_look_at on payment_service.payment_webhooks (status, id) where status in ('PARKED', 'FAILED');

create index if not exists transactions_by_provider_id on payment_service.transactions (provider_id) where provider_id is not null;
comment on index payment_service.transactions_by_provider_id is 'Whose charge an event without our payment id is about.';
