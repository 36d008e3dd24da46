#!lua flags=allow-oom
-- Gives a call up: a waiting one is removed and settled, a started one is named to its worker, and one that is
-- not known yet (its submit may still be on the way) is marked so that it is refused when it comes.
-- Called again it does the same again.
--
-- KEYS  1 job  2 queue  3 body  4 cancel mark of the call  5 canceled registry
--       6 bytes queued
-- ARGV  1 call id  2 seconds of the marks  3 now (RQ's time format)  4 seconds of an ended job
--       5 prefix of the names of workers' cancel lists  6 record
--       7 beginning of the record if there is none yet: see settle in account.lua
--       8 what the worker reads behind the call's id: see commands.cancel
--       9 last event of the log of a logged call that is removed
-- Returns 'removed', 'told', 'ended' or 'marked'.

local fields = redis.call('HMGET', KEYS[1], 'key', 'owner', 'scopes', 'waited_ms', 'usd', 'tokens', 'status',
  'worker_name', 'bytes', 'queued_ms', 'web', 'retry')
local status, worker, bytes, queued_ms, web, retry = unpack(fields, 7)
if status == 'queued' or status == 'deferred' then
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  if status == 'queued' then
    redis.call('ZREM', WAITING, ARGV[1])
    redis.call('LREM', KEYS[2], 1, ARGV[1])
  else
    limits().unpark(ARGV[1], fields[1], fields[2])
  end
  redis.call('UNLINK', KEYS[3])
  if redis.call('EXISTS', KEYS[6]) == 1 then redis.call('DECRBY', KEYS[6], bytes) end
  redis.call('HSET', KEYS[1], 'status', 'canceled', 'ended_at', ARGV[3])
  fields[4] = queued_ms and math.max(now_ms - queued_ms, 0)
  settle(ARGV[1], fields, ARGV[6], ARGV[7], '0', '0', now_ms)
  local log_seconds = string.match(web or '', '^log:(%d+):')
  if log_seconds then
    redis.call('XADD', LOG .. ARGV[1], '*', 'e', ARGV[9])
    redis.call('EXPIRE', LOG .. ARGV[1], log_seconds)
  end
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  redis.call('ZADD', KEYS[5], time[1] + ARGV[4], ARGV[1])
  return 'removed'
end
if status == 'started' then
  if retry == '1' then redis.call('HDEL', KEYS[1], 'retry') end  -- its worker may be lost
  local list = ARGV[5] .. worker
  redis.call('SADD', list, ARGV[1] .. ARGV[8])
  redis.call('EXPIRE', list, ARGV[2])
  return 'told'
end
if status then return 'ended' end
redis.call('SET', KEYS[4], 1, 'EX', ARGV[2])
return 'marked'
