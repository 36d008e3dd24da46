#!lua flags=allow-oom
-- Notes what is needed to render a logged call and, unless there is one, which call an Idempotency-Key stands for.
-- Logs are kept for hours: all may fill a share of Redis, so that there is room for calls whose client waits, and
-- those of one API key hold no more bytes than are left of that share, so that there is room for other keys.
--
-- KEYS  1 what is needed to render the call  2 logs of the API key (by when they expire)  3 bytes of each, and in
--       total  4 those that may still grow  5 Idempotency-Key (none: there is none)
-- ARGV  1 value of the first key  2 its seconds  3 call id  4 share of Redis that logs may fill
--       5 name of a log, without its id  6 name of a job, without its id  7 bytes a call takes besides
--       8 call id and fingerprint of the request  9 seconds of that
-- Returns what was noted before; false: nothing was; or {'full', bytes that the key may hold (negative: there is no
-- room for any key), milliseconds until something of it expires}.

local MEASURED, EXPIRED = 3, 100  -- calls that are looked at in one run

local noted = KEYS[5] and redis.call('GET', KEYS[5])
if noted and noted ~= ARGV[8] then return noted end

local time = redis.call('TIME')
local now = tonumber(time[1])
local total = tonumber(redis.call('HGET', KEYS[3], 'total') or 0)
local function set(id, bytes)
  local more = (bytes or 0) - (redis.call('HGET', KEYS[3], id) or 0)
  total = redis.call('HINCRBY', KEYS[3], 'total', string.format('%d', more))
  if bytes then
    redis.call('HSET', KEYS[3], id, bytes)
  else
    redis.call('HDEL', KEYS[3], id)
    redis.call('ZREM', KEYS[2], id)
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, EXPIRED)) do set(id) end
-- A log grows until its call ends. To count each event would cost every event of all calls.
for _ = 1, MEASURED do
  local id = redis.call('LPOP', KEYS[4])
  if not id then break end
  if redis.call('HEXISTS', KEYS[3], id) == 1 then
    local log = redis.pcall('MEMORY', 'USAGE', ARGV[5] .. id)  -- by a sample; an ACL may refuse it
    local bytes = type(log) == 'number' and log or 0
    set(id, ARGV[7] + bytes + redis.call('STRLEN', ARGV[5] .. id .. ':request'))
    local status = redis.call('HGET', ARGV[6] .. id, 'status')
    if status == 'queued' or status == 'deferred' or status == 'started' then
      redis.call('RPUSH', KEYS[4], id)
    else
      local left = redis.call('TTL', ARGV[5] .. id)
      if left > 0 then redis.call('ZADD', KEYS[2], 'XX', now + left, id) end
    end
  end
end

local memory = redis.call('INFO', 'memory')
local maximum = tonumber(string.match(memory, '\nmaxmemory:(%d+)') or 0)
if maximum > 0 then
  -- The buffers of the connection and of this script hold the value twice now, which passes.
  local free = maximum * ARGV[4] - (tonumber(string.match(memory, '\nused_memory:(%d+)')) - #ARGV[1])
  if total + #ARGV[1] > free then
    local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
    return {'full', math.floor(free), first and math.max(first * 1000 - now * 1000, 0) or 0}
  end
end

redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if KEYS[5] then redis.call('SET', KEYS[5], ARGV[8], 'EX', ARGV[9]) end
if redis.call('HEXISTS', KEYS[3], ARGV[3]) == 0 then redis.call('RPUSH', KEYS[4], ARGV[3]) end
set(ARGV[3], ARGV[7] + #ARGV[1])
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[3])
for i = 2, 4 do
  if redis.call('TTL', KEYS[i]) < tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[i], ARGV[2]) end
end
return false
