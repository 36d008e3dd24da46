#!lua flags=allow-oom
-- Gives a call up: a waiting one is removed, a started one is named to its worker, and one that is
-- not known yet (its submit may still be on the way) is marked so that it is refused when it comes.
-- Called again it does the same again.
--
-- KEYS  1 job  2 queue  3 body  4 cancel mark of the call  5 canceled registry
--       6 bytes queued  7 records
-- ARGV  1 call id  2 seconds of the marks  3 now (RQ's time format)  4 seconds of an ended job
--       5 prefix of the names of workers' cancel lists  6 record
-- Returns 'removed', 'told', 'ended' or 'marked'.

local status, worker, bytes = unpack(redis.call('HMGET', KEYS[1], 'status', 'worker_name', 'bytes'))
if status == 'queued' then
  redis.call('LREM', KEYS[2], 1, ARGV[1])
  redis.call('UNLINK', KEYS[3])
  if ARGV[6] ~= '' then redis.call('XADD', KEYS[7], '*', 'r', ARGV[6], 'q', '{}') end
  if redis.call('EXISTS', KEYS[6]) == 1 then redis.call('DECRBY', KEYS[6], bytes) end
  redis.call('HSET', KEYS[1], 'status', 'canceled', 'ended_at', ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  redis.call('ZADD', KEYS[5], redis.call('TIME')[1] + ARGV[4], ARGV[1])
  return 'removed'
end
if status == 'started' then
  local list = ARGV[5] .. worker
  redis.call('SADD', list, ARGV[1])
  redis.call('EXPIRE', list, ARGV[2])
  return 'told'
end
if status then return 'ended' end
redis.call('SET', KEYS[4], 1, 'EX', ARGV[2])
return 'marked'
