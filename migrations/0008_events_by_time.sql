-- pre-deploy. One index, of a few pages: events are only ever added, in about the order of their time. While it is
-- built nobody can write events; with very many, make it beforehand by hand with `create index concurrently if not exists`.
create index if not exists payment_events_by_time on payment_service.payment_events using brin (at)
  with (autosummarize = on);
comment on index payment_service.payment_events_by_time is 'Which payments changed in a stretch of time: what a table lost is found by it.';
