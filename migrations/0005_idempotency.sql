-- pre-deploy. One table more, and for `inbox` an index that serves removing by age. That index is built under a lock
-- that lets nobody write there meanwhile: with many rows, make it beforehand by hand with
-- `create index concurrently if not exists`.
create table payment_service.idempotency_keys (
  command_id   text primary key,
  payment_id   text not null,
  fingerprint  text not null,
  subject      text not null,
  version      integer not null,
  answered     boolean not null,
  answer       bytea,
  created_at   timestamptz not null default now()
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0.1);
alter table payment_service.idempotency_keys alter column answer set storage external;
comment on table payment_service.idempotency_keys is 'Callers'' Idempotency-Keys, bound in the commit of what they started. Rows leave by age: 24 hours. Never partitioned: the key must stay unique.';
comment on column payment_service.idempotency_keys.command_id is 'Digest of user or service, method, path and key.';
comment on column payment_service.idempotency_keys.subject is 'The attempt or refund that was started or joined; or created, refused, or empty: it was so already.';
comment on column payment_service.idempotency_keys.answer is 'The final answer as it was given, sealed with the key''s digest bound in. Null: it is told from the payment.';
create index idempotency_keys_by_time on payment_service.idempotency_keys (created_at);

-- Rows leave in the order of their age, and their places are used again: ranges of pages would soon hold all ages.
create index if not exists inbox_by_time on payment_service.inbox (created_at);
drop index if exists payment_service.inbox_by_age;
alter table payment_service.inbox set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0.1);
