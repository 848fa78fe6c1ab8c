-- wrk: GET /api/v1/payments/{id}. TOKEN and PAYMENT come from the environment.
local path = "/api/v1/payments/" .. os.getenv("PAYMENT")
local headers = {["Authorization"] = "Bearer " .. os.getenv("TOKEN")}
function request() return wrk.format("GET", path, headers) end
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99)))
  io.write(string.format("ERRORS %d\n", summary.errors.status + summary.errors.connect + summary.errors.read
    + summary.errors.write + summary.errors.timeout))
end
