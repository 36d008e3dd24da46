#!lua flags=allow-oom
-- Notes what is needed to render a logged call and, unless there is one, which call an Idempotency-Key stands for.
-- Logs are kept for hours: they may fill half of Redis, so that there is room for calls whose client waits.
--
-- KEYS  1 what is needed to render the call  2 Idempotency-Key (none: there is none)
-- ARGV  1 value of the first key  2 its seconds  3 call id and fingerprint of the request  4 seconds of that
-- Returns what was noted before; false: nothing was. Fails as writes to a full Redis do where there is no room.

local noted = KEYS[2] and redis.call('GET', KEYS[2])
if noted and noted ~= ARGV[3] then return noted end
local memory = redis.call('INFO', 'memory')
local maximum = tonumber(string.match(memory, '\nmaxmemory:(%d+)') or 0)
-- The buffers of the connection and of this script hold the value twice now, which passes.
local used = tonumber(string.match(memory, '\nused_memory:(%d+)')) - #ARGV[1]
if maximum > 0 and used > maximum * 0.5 then return redis.error_reply('OOM logs fill half of the memory') end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4]) end
return false
