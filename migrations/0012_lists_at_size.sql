-- pre-deploy. Indexes, so that every list is read from one of them, whatever is asked and however far in its page is:
-- rows are fetched for the page alone. While they are built nobody can write payments (about 20 s for a million); with
-- very many, make each beforehand by hand with `create index concurrently if not exists`, and see in pg_index that it is
-- valid (`indisvalid`): one that failed half-way is taken for made here, and is of no use.
--
-- `amount_minor > 0`: what nobody is shown is in none of them, so that no row must be looked at to leave it out; but for
-- that by amount, since PostgreSQL does not use the statistics of an expression that only a part of the rows has.
-- A payment is written at the same few places of the indexes by status and provider as all others of its day, which
-- costs next to nothing. That by amount is written anywhere, as a user's: without it a list by amount reads all payments.
create index if not exists payments_shown_by_time on payment_service.payments (created_at desc, id)
  where amount_minor > 0;
create index if not exists payments_shown_by_user on payment_service.payments (user_id, created_at desc, id)
  include (status) where amount_minor > 0;
create index if not exists payments_by_status on payment_service.payments (status desc, created_at desc, id)
  include (provider) where amount_minor > 0;
create index if not exists payments_by_provider on payment_service.payments (provider, created_at desc, id)
  where amount_minor > 0;
create index if not exists payments_by_amount on payment_service.payments (
  (amount_minor::float8 * case when currency in ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG',
  'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF') then 10000 when currency in ('BHD', 'IQD', 'JOD', 'KWD',
  'LYD', 'OMR', 'TND') then 10 when currency in ('CLF', 'UYW') then 1 else 100 end) desc, id
) include (amount_minor, currency);
create index if not exists payment_webhooks_by_status on payment_service.payment_webhooks (status, id);
-- The expression has no statistics yet, and without them its index is not chosen. Before the drops: after them
-- nobody could read payments meanwhile.
analyze payment_service.payments;
drop index if exists payment_service.payment_webhooks_to_look_at;
drop index if exists payment_service.payments_by_time;
drop index if exists payment_service.payments_by_user;
