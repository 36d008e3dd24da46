#!lua flags=allow-oom
-- Keeps a response, and bounds the bytes of all that are kept: those that expire next make room.
--
-- KEYS  1 response  2 kept responses (by the time at which they expire)  3 bytes of them
-- ARGV  1 response  2 seconds  3 most bytes  4 name of the response  5 name of a response in Redis, without that
--       6 seconds the counts live on
-- Returns 1, or 0 if there is no room. A member of the kept responses is the size, a colon, and the name.

local size, most = #ARGV[1], tonumber(ARGV[3])
if size > most then return 0 end
local memory = redis.call('INFO', 'memory')
local limit = tonumber(string.match(memory, '\nmaxmemory:(%d+)') or 0)
if limit > 0 and tonumber(string.match(memory, '\nused_memory:(%d+)')) > limit * 0.8 then return 0 end

local now = tonumber(redis.call('TIME')[1])
local total = tonumber(redis.call('GET', KEYS[3]) or 0)
local function forget(member)
  local bytes, name = string.match(member, '^(%d+):(.*)$')
  if redis.call('ZREM', KEYS[2], member) == 1 then total = total - bytes end
  return ARGV[5] .. name
end

local before = redis.call('STRLEN', KEYS[1])
if before > 0 then forget(before .. ':' .. ARGV[4]) end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do forget(member) end
while total + size > most do
  local first = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not first then
    total = 0
    break
  end
  redis.call('UNLINK', forget(first))
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[2], size .. ':' .. ARGV[4])
redis.call('SET', KEYS[3], string.format('%d', total + size), 'EX', ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[6])
return 1
