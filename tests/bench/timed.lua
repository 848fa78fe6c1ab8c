-- wrk: how long each kind of request takes, and from the first of a kind sent to the last answered. wrk itself only knows
-- all requests together. An answer is known by the X-Request-ID that it brings back. One thread.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long ns; } moment; int clock_gettime(int, moment *); ]]
local MONOTONIC, moment = 1, ffi.new("moment")
function now_us()
  ffi.C.clock_gettime(MONOTONIC, moment)
  return tonumber(moment.s) * 1e6 + tonumber(moment.ns) / 1e3
end

local KINDS = {"create", "process", "both", "read", "health", "webhook"}
local thread_of_all, under_way = nil, {}

function setup(thread) thread_of_all = thread end

-- Globals, each flat: done() runs in another Lua state, and wrk fails on a table within a table.
for _, kind in ipairs(KINDS) do
  _G["took_" .. kind], _G["first_us_" .. kind], _G["last_us_" .. kind], _G["refused_" .. kind] = {}, 0, 0, 0
end

waiting_now = 0

function add(kind, us) table.insert(_G["took_" .. kind], us) end

function sent(id, kind)
  local at = now_us()
  if _G["first_us_" .. kind] == 0 then _G["first_us_" .. kind] = at end
  under_way[id], waiting_now = {kind = kind, at = at}, waiting_now + 1
end

-- The kind and the time of an answer; no time when it was no yes.
function answered(status, headers)
  local id, at = headers["X-Request-ID"], now_us()
  local one = id and under_way[id]
  if not one then return nil end
  under_way[id], waiting_now = nil, waiting_now - 1
  _G["last_us_" .. one.kind] = at
  if status ~= 200 and status ~= 201 then
    _G["refused_" .. one.kind] = _G["refused_" .. one.kind] + 1
    return one.kind, nil
  end
  add(one.kind, at - one.at)
  return one.kind, at - one.at
end

function done(summary)
  local function get(name, kind) return thread_of_all:get(name .. "_" .. kind) end
  for _, kind in ipairs(KINDS) do
    local all = get("took", kind)
    local function at(share) return all[math.max(1, math.ceil(#all * share))] end
    table.sort(all)
    if #all > 0 then
      local span = get("last_us", kind) - get("first_us", kind)
      io.write(string.format("TIMED %s %d %d %d %d %d\n", kind, #all, span, at(0.5), at(0.99), all[#all]))
    end
    if get("refused", kind) > 0 then io.write(string.format("REFUSED %s %d\n", kind, get("refused", kind))) end
  end
  io.write(string.format("UNANSWERED %d\n", thread_of_all:get("waiting_now")))
  local errors = summary.errors
  io.write(string.format("ERRORS %d\n", errors.connect + errors.read + errors.write + errors.timeout))
end
