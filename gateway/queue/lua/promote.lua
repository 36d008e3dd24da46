#!lua flags=allow-oom
-- Ends parked calls whose time has passed, releases expired calls in flight, and queues the parked calls for which
-- there is room. Called again it does what is left to do.
--
-- ARGV  1 now (RQ's time format)  2 seconds of an ended job  3 last event of the log of a logged call, without its id
-- Returns how many calls are still parked.

if redis.call('EXISTS', DEFERRED) == 0 then return 0 end
local L = limits()
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEFERRED, '-inf', time[1], 'LIMIT', 0, 1000)) do
  local job = JOB .. id
  local fields = redis.call('HMGET', job, 'key', 'owner', 'scopes', 'waited_ms', 'usd', 'tokens', 'status', 'bytes',
    'queued_ms', 'web')
  redis.call('ZREM', DEFERRED, id)
  if fields[7] == 'deferred' then
    L.unpark(id, fields[1], fields[2])
    redis.call('HSET', job, 'status', 'canceled', 'ended_at', ARGV[1])
    fields[4] = math.max(now_ms - fields[9], 0)
    settle(id, fields, '', '{"status":"failed","error_code":"deadline_exceeded"', '0', '0', now_ms)
    local log_seconds = string.match(fields[10] or '', '^log:(%d+):')
    if log_seconds then
      redis.call('XADD', LOG .. id, '*', 'e', id .. ARGV[3])
      redis.call('EXPIRE', LOG .. id, log_seconds)
    end
    redis.call('EXPIRE', job, ARGV[2])
    redis.call('ZADD', RQ_CANCELED, time[1] + ARGV[2], id)
    redis.call('UNLINK', CALL .. id)
    if redis.call('EXISTS', QUEUED_BYTES) == 1 then redis.call('DECRBY', QUEUED_BYTES, fields[8]) end
  end
end
local parked = redis.call('HGETALL', PARKED)
for i = 1, #parked, 2 do
  local public_id, owner = parked[i], parked[i + 1]
  L.expire(public_id, now_ms)
  if owner ~= '' then L.expire('owner:' .. owner, now_ms) end
  L.promote(public_id, owner)
end
return redis.call('ZCARD', DEFERRED)
