#!lua flags=allow-oom
-- Ends a turn of an API key: its events are done, or due again later.
--
-- KEYS  1 keys with events  2 events of this key  3... bodies of the events of the turn
-- ARGV  1 public id of the key  2 time in ms before which it gets no other turn
--       3... id of each event, and when it is due again in ms ('': never)

for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('UNLINK', KEYS[3 + (i - 3) / 2])
  else
    redis.call('ZADD', KEYS[2], 'XX', ARGV[i + 1], ARGV[i])
  end
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if first[2] then
  redis.call('ZADD', KEYS[1], math.max(first[2], ARGV[2]), ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
