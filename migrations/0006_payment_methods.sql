-- pre-deploy. Two new tables; locks nothing.
create table payment_service.payment_methods (
  id             text primary key,
  user_id        text not null,
  provider       text not null,
  type           text not null,
  status         text not null,
  is_default     boolean not null default false,
  wants_default  boolean not null default false,
  brand          text,
  last4          text,
  exp_month      smallint,
  exp_year       smallint,
  given_digest   bytea not null,
  token_digest   bytea,
  secrets        bytea not null,
  created_at     timestamptz not null,
  updated_at     timestamptz not null default now(),
  due_at         timestamptz,
  tries          integer not null default 0
) with (fillfactor = 80);
comment on table payment_service.payment_methods is 'Saved ways to pay. What is charged is in secrets alone; a row leaves when it is detached at its provider.';
comment on column payment_service.payment_methods.given_digest is 'SHA-256 of the token it was made of: the same one sent again makes no second method.';
comment on column payment_service.payment_methods.token_digest is 'SHA-256 of what is charged, by which a provider''s news finds it. Not keyed: providers'' tokens are random and long.';
comment on column payment_service.payment_methods.secrets is 'Sealed, with the row''s id bound in: token, customer, the object in which it is confirmed.';
comment on column payment_service.payment_methods.due_at is 'When somebody must look at it: after a lease, or a pause. Null when nothing is left to do.';
create index payment_methods_by_user on payment_service.payment_methods (user_id, created_at desc);
create unique index payment_methods_one_default on payment_service.payment_methods (user_id) where is_default;
create unique index payment_methods_by_given on payment_service.payment_methods (user_id, provider, given_digest) where status <> 'REMOVED';
create index payment_methods_by_token on payment_service.payment_methods (token_digest) where token_digest is not null;
create index payment_methods_due on payment_service.payment_methods (due_at) where due_at is not null;

create table payment_service.provider_customers (
  user_id     text not null,
  provider    text not null,
  customer    bytea not null,
  updated_at  timestamptz not null default now(),
  primary key (user_id, provider)
);
comment on table payment_service.provider_customers is 'A provider''s own id of a user, sealed with user and provider bound in. Kept when the user''s last method leaves.';
