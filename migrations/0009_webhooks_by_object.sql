-- pre-deploy. One index, on a table whose rows leave after a month. While it is built no webhook can be kept (its
-- provider sends it again); with very many, make it beforehand by hand with `create index concurrently if not exists`.
create index if not exists payment_webhooks_by_object on payment_service.payment_webhooks (object_id)
  where object_id is not null and payment_id is not null;
comment on index payment_service.payment_webhooks_by_object is 'Which payment a person means who has an object''s id from the provider''s own pages.';
