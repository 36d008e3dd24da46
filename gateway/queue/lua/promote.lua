#!lua flags=allow-oom
-- Ends calls outside the queue whose time has passed, releases expired calls in flight, and queues the calls that wait
-- for nothing more: whose start has come, whose pause has ended, for which there is room in flight. Called again it
-- does what is left to do.
--
-- ARGV  1 now (RQ's time format)  2 seconds of an ended job  3 seconds kept past the deadline
--       4, 5 last event of the log of a logged call without its id: past its deadline; its key is no longer valid
-- Returns how many calls still wait outside the queue.

if redis.call('EXISTS', DEFERRED) == 0 then return 0 end
local L = limits()
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- Takes a call out of what it waits in; returns its fields, or nil if it no longer waits there.
local function take(id)
  redis.call('ZREM', DEFERRED, id)
  local fields = redis.call('HMGET', JOB .. id, 'key', 'owner', 'scopes', 'waited_ms', 'usd', 'tokens', 'status',
    'bytes', 'queued_ms', 'offset', 'deadline_ms', 'web')
  if fields[7] ~= 'deferred' then return end
  L.unpark(id, fields[1], fields[2])
  return fields
end

local function give_up(id, fields, error_code, last_event)
  local job = JOB .. id
  redis.call('HSET', job, 'status', 'canceled', 'ended_at', ARGV[1])
  fields[4] = math.max(now_ms - fields[9], 0)
  settle(id, fields, '', '{"status":"failed","error_code":"' .. error_code .. '"', '0', '0', now_ms)
  local log_seconds = string.match(fields[12] or '', '^log:(%d+):')
  if log_seconds then
    redis.call('XADD', LOG .. id, '*', 'e', id .. last_event)
    redis.call('EXPIRE', LOG .. id, log_seconds)
  end
  redis.call('EXPIRE', job, ARGV[2])
  redis.call('ZADD', RQ_CANCELED, time[1] + ARGV[2], id)
  redis.call('UNLINK', CALL .. id)
  if redis.call('EXISTS', QUEUED_BYTES) == 1 then redis.call('DECRBY', QUEUED_BYTES, fields[8]) end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEFERRED, '-inf', time[1], 'LIMIT', 0, 1000)) do
  local fields = take(id)
  if fields then give_up(id, fields, 'deadline_exceeded', ARGV[4]) end
end

local ready = redis.call('ZRANGEBYSCORE', SCHEDULED, '-inf', now_ms, 'LIMIT', 0, 1000)
for _, pause in ipairs(redis.call('SMEMBERS', PAUSED_NAMES)) do
  if redis.call('HEXISTS', PAUSED, pause) == 0 then
    for _, id in ipairs(redis.call('ZRANGE', PAUSED_CALLS .. pause, 0, 999)) do ready[#ready + 1] = id end
  end
end
for _, id in ipairs(ready) do
  local fields = take(id)
  if fields then
    local key, owner = fields[1], fields[2]
    if L.refused(key, owner, time[1]) then
      give_up(id, fields, 'invalid_api_key', ARGV[5])
    elseif fields[3] then
      L.park(id, key, owner, L.expiry(fields[12], fields[11] + 0, ARGV[3] * 1000))  -- queued below, if there is room
    else
      local weight = tonumber(redis.call('HGET', KEY .. key, 'weight') or 1)
      redis.call('HSET', JOB .. id, 'status', 'queued', 'start', enqueue(id, key, weight, fields[10]))
    end
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
