-- wrk: requests of several kinds in turn. MIX: create, process (of what was created, with the mock's good token), read,
-- health; with "create process" and one connection every create is followed by the processing of its payment.
-- PACE_MS: each connection pauses for about so long between two requests; 0: none. Also from the environment: TOKEN, RUN,
-- LUA (this folder).
dofile(os.getenv("LUA") .. "/timed.lua")
local run, pace_ms, mix = os.getenv("RUN"), tonumber(os.getenv("PACE_MS") or "0"), {}
for kind in os.getenv("MIX"):gmatch("%S+") do table.insert(mix, kind) end
local head = "Authorization: Bearer " .. os.getenv("TOKEN") .. "\r\nHost: bench\r\nX-Request-ID: "
local PROCESS = '{"paymentMethodId":"tok_visa"}'
local n, turn, last_payment = -1, 0, nil
local waiting, oldest, newest = {}, 1, 0 -- created and not processed
local creating_us, payment_of = {}, {}

local function post(id, path, body)
  return "POST " .. path .. " HTTP/1.1\r\n" .. head .. id .. "\r\nContent-Type: application/json\r\nContent-Length: "
    .. #body .. "\r\n\r\n" .. body
end
local function get(id, path) return "GET " .. path .. " HTTP/1.1\r\n" .. head .. id .. "\r\n\r\n" end

function request()
  n = n + 1
  if n == 0 then return get("none", "/health") end -- for wrk's own look at what a request is, and never sent
  turn = turn % #mix + 1
  local kind, id, asked = mix[turn], run .. "-" .. n, nil
  if kind == "process" and waiting[oldest] then
    local payment = waiting[oldest]
    waiting[oldest], oldest = nil, oldest + 1
    payment_of[id] = payment
    asked = post(id, "/api/v1/payments/" .. payment .. "/process", PROCESS)
  elseif kind == "read" and last_payment then
    asked = get(id, "/api/v1/payments/" .. last_payment)
  elseif kind == "health" then
    asked = get(id, "/health")
  else
    kind = "create"
    asked = post(id, "/api/v1/payments", '{"orderId":"' .. id .. '","amount":99.99,"currency":"USD"}')
  end
  sent(id, kind)
  return asked
end

function response(status, headers, body)
  local id = headers["X-Request-ID"]
  local kind, us = answered(status, headers)
  if kind == "create" and us then
    last_payment = body:match('"id":%s*"([^"]+)"')
    creating_us[last_payment] = us
    newest = newest + 1
    waiting[newest] = last_payment
  elseif kind == "process" then
    local payment = payment_of[id]
    if us then
      add("both", creating_us[payment] + us)
      first_us_both, last_us_both = first_us_create, last_us_process
    end
    payment_of[id], creating_us[payment] = nil, nil
  end
end

if pace_ms > 0 then function delay() return pace_ms * (0.5 + math.random()) end end
