-- wrk: each line of the file WEBHOOKS once, a signature, a tab and a body; then it ends. One that is not answered is
-- missing from the figures. LUA is this folder.
dofile(os.getenv("LUA") .. "/timed.lua")
local ffi = require("ffi")
ffi.cdef [[ int getpid(void); int kill(int, int); ]]
local INTERRUPT, n, ended, lines = 2, -1, 0, {}
local LOST_US = 5e6 -- after the last answer: what is under way then went with its connection
local OTHER = "GET /health HTTP/1.1\r\nHost: bench\r\n\r\n"

function init()
  for line in io.lines(os.getenv("WEBHOOKS")) do table.insert(lines, line) end
end

function request()
  n = n + 1
  -- The first is for wrk's own look at what a request is, and never sent; past the last one the other connections ask
  -- for something while it is under way.
  if n == 0 or n > #lines then return OTHER end
  local signature, body = lines[n]:match("^([^\t]+)\t(.*)$")
  local id = "webhook-" .. n
  sent(id, "webhook")
  return "POST /api/v1/webhooks HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nX-Request-ID: " .. id
    .. "\r\nMock-Signature: " .. signature .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

local function finish()
  wrk.thread:stop()
  ffi.C.kill(ffi.C.getpid(), INTERRUPT) -- its main thread sleeps to the end of the time given otherwise
end

function response(status, headers)
  if answered(status, headers) then
    ended = ended + 1
    if ended == #lines then finish() end
  elseif n > #lines and now_us() - last_us_webhook > LOST_US then
    finish()
  end
end
