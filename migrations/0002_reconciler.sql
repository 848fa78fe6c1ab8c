-- pre-deploy. New columns are null for older rows and for older workers; takes the strongest lock on both tables for
-- a moment, and one against writers of transactions while its index is built.
alter table payment_service.transactions add column sent_at timestamptz, add column moved_minor bigint;
alter table payment_service.refunds add column moved_minor bigint;
comment on column payment_service.transactions.sent_at is 'When the call may first have been sent: the commit with an owner, else the first claim. Null while it certainly was not.';
comment on column payment_service.transactions.moved_minor is 'What it added to payments.captured. Null where an older worker wrote the row.';
comment on column payment_service.refunds.moved_minor is 'What it added to payments.refunded. Null where an older worker wrote the row.';
create index transactions_by_change on payment_service.transactions (updated_at);
