#!lua flags=allow-oom
-- Counts the log of a call no longer among those of its API key, and deletes what belongs to it.
--
-- KEYS  1 logs of the API key (by when they expire)  2 bytes of each, and in total  3... what is deleted
-- ARGV  1 call id

local bytes = redis.call('HGET', KEYS[2], ARGV[1])
if bytes then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HINCRBY', KEYS[2], 'total', -bytes)
end
redis.call('ZREM', KEYS[1], ARGV[1])
for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) end
