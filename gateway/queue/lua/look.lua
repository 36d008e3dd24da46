#!lua flags=allow-oom
-- Looks for a stored response, and says who makes the call if there is none.
--
-- KEYS  1 response  2 first call (that runs for all identical ones)
-- ARGV  1 call id  2 seconds the first call may take  3 name of a job, without its id
--       4 seconds a call may take from here into the queue
-- Returns {'hit', response}; {'first'}: this call is the first now, all others wait for it; {'wait'}; or
-- {'run'}: the first call has left no response, so each makes its own.
-- Nobody waits for a call that is paused: the pause may be that of another key.

local entry = redis.pcall('GET', KEYS[1])
if type(entry) == 'string' then return {'hit', entry} end
local now = tonumber(redis.call('TIME')[1])
local id, since = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+) (%d+)$')
if id and id ~= ARGV[1] then
  local status, aside = unpack(redis.call('HMGET', ARGV[3] .. id, 'status', 'aside'))
  if status == 'queued' or status == 'started' or status == 'deferred' and not aside then return {'wait'} end
  if status == 'finished' or status == 'failed' then
    redis.call('DEL', KEYS[2])
    return {'run'}
  end
  if not status and now - tonumber(since) < tonumber(ARGV[4]) then return {'wait'} end
end
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. now, 'EX', ARGV[2])
return {'first'}
