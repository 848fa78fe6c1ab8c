-- wrk: POST /api/v1/payments, a new order each time. TOKEN, RUN and LUA (this folder) come from the environment.
dofile(os.getenv("LUA") .. "/untimed.lua")
local token, run, n = os.getenv("TOKEN"), os.getenv("RUN"), 0
function request()
  n = n + 1
  local body = string.format('{"orderId":"%s-%d","amount":99.99,"currency":"USD"}', run, n)
  return wrk.format("POST", "/api/v1/payments",
    {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json"}, body)
end
