#!lua flags=allow-oom
-- Moves a waiting call to the front: of the queue, or of its key's calls that wait for others of the key to end.
--
-- KEYS  1 job  2 audit log
-- ARGV  1 call id  2 entry of the audit log  3 most entries of it
-- Returns 'moved'; or why the call cannot be moved: 'paused', 'scheduled', or the status of its job ('': unknown).

local status, key, owner, aside = unpack(redis.call('HMGET', KEYS[1], 'status', 'key', 'owner', 'aside'))
if aside then return aside == 'scheduled' and aside or 'paused' end

local function to_front(line)
  local least = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
  if least[1] ~= ARGV[1] then redis.call('ZADD', line, 'XX', least[2] - 1, ARGV[1]) end
end

if status == 'queued' then
  if not redis.call('ZSCORE', WAITING, ARGV[1]) then return 'started' end  -- the previous release queued it
  to_front(WAITING)
  -- The queue's time is the start of the last call that was claimed: it must not jump to where this one was.
  redis.call('HSET', KEYS[1], 'start', redis.call('HGET', FAIR, 'V') or 0)
elseif status == 'deferred' and key then
  to_front(PARKED_CALLS .. key)
  if owner ~= '' then to_front(PARKED_CALLS .. 'owner:' .. owner) end
else
  return status or ''
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'entry', ARGV[2])
return 'moved'
