#!lua flags=allow-oom
-- Gives a call up: a waiting one is removed and settled, a started one is named to its worker, and one that is
-- not known yet (its submit may still be on the way) is marked so that it is refused when it comes.
-- Called again it does the same again.
--
-- Returns 'removed', 'told', 'ended' or 'marked'.

local job, queue, body, cancel_mark, canceled_registry, queued_bytes = unpack(KEYS)
local
  id,
  mark_seconds,  -- that marks live
  now_text,  -- RQ's time format
  ended_seconds,  -- that an ended job is kept
  list_prefix,  -- of the names of workers' cancel lists
  record,  -- of the call
  ending,  -- beginning of the record if there is none yet: see settle in account.lua
  suffix,  -- what the worker reads behind the call's id: see commands.cancel
  last_event  -- of the log of a logged call that is removed
  = unpack(ARGV)

local fields = redis.call('HMGET', job, 'key', 'owner', 'scopes', 'waited_ms', 'usd', 'tokens', 'status',
  'worker_name', 'bytes', 'queued_ms', 'web', 'retry')
local status, worker, bytes, queued_ms, web, retry = unpack(fields, 7)
if status == 'queued' or status == 'deferred' then
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  if status == 'queued' then
    redis.call('ZREM', WAITING, id)
    redis.call('LREM', queue, 1, id)
  else
    limits().unpark(id, fields[1], fields[2])
  end
  redis.call('UNLINK', body)
  if redis.call('EXISTS', queued_bytes) == 1 then redis.call('DECRBY', queued_bytes, bytes) end
  redis.call('HSET', job, 'status', 'canceled', 'ended_at', now_text)
  fields[4] = queued_ms and math.max(now_ms - queued_ms, 0)
  settle(id, fields, record, ending, '0', '0', now_ms)
  local log_seconds = string.match(web or '', '^log:(%d+):')
  if log_seconds then
    redis.call('XADD', LOG .. id, '*', 'e', last_event)
    redis.call('EXPIRE', LOG .. id, log_seconds)
  end
  redis.call('EXPIRE', job, ended_seconds)
  redis.call('ZADD', canceled_registry, time[1] + ended_seconds, id)
  return 'removed'
end
if status == 'started' then
  if retry == '1' then redis.call('HDEL', job, 'retry') end  -- its worker may be lost
  local list = list_prefix .. worker
  redis.call('SADD', list, id .. suffix)
  redis.call('EXPIRE', list, mark_seconds)
  return 'told'
end
if status then return 'ended' end
redis.call('SET', cancel_mark, 1, 'EX', mark_seconds)
return 'marked'
