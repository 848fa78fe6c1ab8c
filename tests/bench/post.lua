-- wrk: POST /api/v1/payments, a new order each time. TOKEN and RUN come from the environment.
local token, run, thread_number = os.getenv("TOKEN"), os.getenv("RUN") or "r", 0
function setup(thread) thread:set("id", thread_number); thread_number = thread_number + 1 end
function init(args) n = 0 end
function request()
  n = n + 1
  local body = string.format('{"orderId":"%s-%d-%d","amount":99.99,"currency":"USD"}', run, id, n)
  return wrk.format("POST", "/api/v1/payments",
    {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json"}, body)
end
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99)))
  io.write(string.format("ERRORS %d\n", summary.errors.status + summary.errors.connect + summary.errors.read
    + summary.errors.write + summary.errors.timeout))
end
