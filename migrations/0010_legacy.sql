-- pre-deploy. One table more; takes no lock that anybody waits for.
create table payment_service.legacy_payments (
  id           text primary key,
  payment_id   text not null,
  document     text,
  imported_at  timestamptz not null default now()
);
comment on table payment_service.legacy_payments is 'Ids of the service before this one, which callers may still have. Written by import-legacy alone.';
comment on column payment_service.legacy_payments.payment_id is 'The payment of its order.';
comment on column payment_service.legacy_payments.document is 'Of another payment of that order, kept as its history: the event PaymentImported. Null: it is the order''s payment itself.';
create index legacy_payments_by_payment on payment_service.legacy_payments (payment_id);
