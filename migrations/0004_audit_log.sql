-- pre-deploy. Two new tables and a function; dead_letters is locked for the moment that a column with a default takes.
create table payment_service.audit_log (
  chain   text not null,
  number  bigint not null,
  entry   json not null,
  hash    bytea not null,
  primary key (chain, number)
);
comment on table payment_service.audit_log is 'Append only. One chain for each worker process. hash = HMAC(key outside the database, hash of the number before || chain || number || entry as it stands here); entry is json, which keeps its text.';
create index audit_log_by_time on payment_service.audit_log ((entry ->> 'at'));
create index audit_log_by_payment on payment_service.audit_log ((entry ->> 'paymentId')) where entry ->> 'paymentId' is not null;
create index audit_log_of_commands on payment_service.audit_log ((entry ->> 'at')) where starts_with(chain, 'cli:');
create trigger append_only before update or delete on payment_service.audit_log
  for each row execute function payment_service.refuse_change();
create trigger append_only_truncate before truncate on payment_service.audit_log
  for each statement execute function payment_service.refuse_change();

alter table payment_service.dead_letters add column sealed boolean not null default false;

create table payment_service.dead_letter_replays (
  letter      text primary key,
  source      text not null,
  operator    text not null,
  claimed_at  timestamptz not null,
  sent_at     timestamptz
);
comment on table payment_service.dead_letter_replays is 'Claimed first, marked as sent after the broker''s ack: a crash between the two sends the letter again.';

-- What the role of DATABASE_URL may do when it is not the one that owns the tables. `migrate` calls it after the files,
-- so that it covers what later files add: a table with a trigger `append_only` is never changed by the service.
create function payment_service.grant_to_service(service name) returns void language plpgsql as $$
declare
  kept text;
begin
  execute format('grant usage on schema payment_service to %I', service);
  execute format('grant select, insert, update, delete on all tables in schema payment_service to %I', service);
  execute format('grant usage on all sequences in schema payment_service to %I', service);
  execute format('revoke insert, update, delete on payment_service.schema_migrations from %I', service);
  for kept in
    select format('%I.%I', n.nspname, c.relname)
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where t.tgname = 'append_only' and n.nspname = 'payment_service'
  loop
    execute format('revoke update, delete, truncate on %s from %I', kept, service);
  end loop;
end $$;
revoke execute on function payment_service.grant_to_service(name) from public;
