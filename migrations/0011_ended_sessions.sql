-- pre-deploy. One small table more; takes no lock that anybody waits for.
create table payment_service.ended_sessions (
  session  text primary key,
  ends_at  timestamptz not null
);
comment on table payment_service.ended_sessions is 'Sessions of the console whose operators signed out before their end: a copy of such a cookie is worth nothing. Rows leave with that end, 8 hours later at most.';
comment on column payment_service.ended_sessions.session is 'Digest of its random name, which nobody can turn back into a cookie.';
