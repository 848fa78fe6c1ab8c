-- wrk: GET /api/v1/payments/{id}. TOKEN, PAYMENT and LUA (this folder) come from the environment.
dofile(os.getenv("LUA") .. "/untimed.lua")
local path = "/api/v1/payments/" .. os.getenv("PAYMENT")
local headers = {["Authorization"] = "Bearer " .. os.getenv("TOKEN")}
function request() return wrk.format("GET", path, headers) end
