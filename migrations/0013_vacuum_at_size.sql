-- pre-deploy. How soon autovacuum comes, table by table; nobody but a vacuum waits for it.
--
-- PostgreSQL's own rule is a fifth of the table: with 5 million payments a million dead rows, and a million new ones
-- whose pages are not known to be visible to all, so that a list fetches every row it only counts or passes over.
--   payments, transactions          a twentieth: each vacuum reads all their indexes, so not more often than that
--   payment_events, audit_log       nothing dies there; pages are marked visible, and frozen, a part at a time
--   payment_webhooks                as inbox: as many rows leave as come, each is changed once on its way
--   outbox, order_updates (0001, 0007)  every row leaves within seconds: after 5,000 of them, whatever there is, and
--                                   without pauses. They stay a few pages large, and a reader never meets many dead rows.
--   inbox, idempotency_keys (0005)  a fiftieth, at least 5,000: what leaves by age makes room for what comes
alter table payment_service.payments set (autovacuum_vacuum_scale_factor = 0.05,
  autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
alter table payment_service.transactions set (autovacuum_vacuum_scale_factor = 0.05,
  autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
alter table payment_service.payment_events set (autovacuum_vacuum_insert_scale_factor = 0.05);
alter table payment_service.audit_log set (autovacuum_vacuum_insert_scale_factor = 0.05);
alter table payment_service.payment_webhooks set (autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.1);
