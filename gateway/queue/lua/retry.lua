#!lua flags=allow-oom
-- Queues a call once more whose worker was lost before anything of its response had arrived, if it may. It keeps what
-- it has reserved, and starts before those that wait with its priority. Called again for the same claim it answers the
-- same.
--
-- KEYS  1 job  2 body  3 inbox or log  4 started registry
-- ARGV  1 call id  2 claim of the lost worker  3 event that tells readers of it  4 1 if they read a log
--       5 seconds the inbox or log lives on
-- Returns 1 if the call runs once more, 0 if it does not.

local status, claim, retry, key, owner, offset, deadline, queued_ms, waited_ms, bytes = unpack(redis.call('HMGET',
  KEYS[1], 'status', 'claim', 'retry', 'key', 'owner', 'offset', 'deadline_ms', 'queued_ms', 'waited_ms', 'bytes'))
if retry == ARGV[2] then return 1 end
if status ~= 'started' or claim ~= ARGV[2] or retry ~= '1' or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if ARGV[4] == '1' and redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if now_ms >= tonumber(deadline) or limits().refused(key, owner, time[1]) then return 0 end

redis.call('ZREM', KEYS[4], ARGV[1] .. ':' .. claim)
redis.call('HDEL', KEYS[1], 'claim', 'worker_name')
enqueue(ARGV[1], key, tonumber(redis.call('HGET', KEY .. key, 'weight') or 1), offset)
local start = redis.call('HGET', FAIR, 'V') or 0
redis.call('ZADD', WAITING, start + offset, ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'queued', 'start', start, 'retry', claim, 'lost_ms',
  string.format('%.0f', math.max(now_ms - queued_ms - waited_ms, 0)))
redis.call('INCRBY', QUEUED_BYTES, bytes)
redis.call('EXPIRE', QUEUED_BYTES, SHARED_SECONDS)
-- Behind all events of the lost claim that have come, and before those of the next.
redis.call('XADD', KEYS[3], '*', 'e', ARGV[3])
redis.call('EXPIRE', KEYS[3], ARGV[5])
return 1
