#!lua flags=allow-oom
-- Queues an event for the webhook of an API key.
--
-- KEYS  1 record of the key  2 keys with events  3 events of this key  4 body of the event
-- ARGV  1 public id of the key  2 id of the event  3 its type  4 id of the object that it is about
--       5 most events of a key  6 TTL of an event in seconds
-- Returns 'ok'; 'none': the key has no webhook; 'full': too many of its events wait.
-- Called again while the event waits, it changes nothing.

if redis.call('HEXISTS', KEYS[1], 'webhook_url') == 0 then return 'none' end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[5]) then return 'full' end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local body = string.format('{"id":%s,"object":"event","created_at":%d,"type":%s,"data":{"id":%s}}',
  cjson.encode(ARGV[2]), time[1], cjson.encode(ARGV[3]), cjson.encode(ARGV[4]))
if not redis.call('SET', KEYS[4], body, 'NX', 'EX', ARGV[6]) then return 'ok' end
redis.call('ZADD', KEYS[3], now_ms, ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[6])
redis.call('ZADD', KEYS[2], 'LT', now_ms, ARGV[1])
return 'ok'
