-- pre-deploy. The index of events by time, anew. What is left free in old pages is filled with new events once a vacuum
-- has seen it, and one new event among old ones made the old index take all that lie between for possible: with half a
-- million payments a third of all events was read for one hour (250 ms; this one: 2 ms). This one keeps several
-- stretches of time for each range of pages. While it is built nobody can write events (about 1 s for a million); with
-- very many, make it beforehand by hand with `create index concurrently if not exists`.
create index if not exists payment_events_in_time on payment_service.payment_events
  using brin (at timestamptz_minmax_multi_ops) with (autosummarize = on);
comment on index payment_service.payment_events_in_time is 'Which payments changed in a stretch of time: what a table lost is found by it.';
drop index if exists payment_service.payment_events_by_time;
