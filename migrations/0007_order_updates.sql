-- pre-deploy. One table more; takes no lock that anybody waits for.
create table payment_service.order_updates (
  order_id    text primary key,
  payment_id  text not null,
  version     integer not null,
  word        text not null,
  reason      text not null,
  due_at      timestamptz not null default now(),
  tries       integer not null default 0,
  claim       text,
  late        boolean not null default false,
  problem     text not null default '',
  since       timestamptz not null default now()
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_cost_delay = 0);
comment on table payment_service.order_updates is 'What the order service has not been told yet: the newest word of each order. A row leaves when it has that word. Written only where ORDER_SERVICE_URL is set.';
comment on column payment_service.order_updates.version is 'The payment''s, when this word came: the higher one is newer.';
comment on column payment_service.order_updates.claim is 'Who tells it just now; until due_at, which is then the end of a lease. A newer word waits for that.';
comment on column payment_service.order_updates.late is 'A request with some word had no answer and may still arrive: the newest word is told once more.';
comment on column payment_service.order_updates.problem is 'Why it was not told the last time.';
create index order_updates_due on payment_service.order_updates (due_at);
