-- wrk: what it knows by itself, in the words of timed.lua. Nothing of ours looks at an answer: the cheapest client.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("TIMED all %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.max))
  io.write(string.format("REFUSED all %d\n", errors.status))
  io.write(string.format("ERRORS %d\n", errors.connect + errors.read + errors.write + errors.timeout))
end
