#!lua flags=allow-oom
-- Ends a call: the first outcome stands, a later one (of a worker that was given up) is fenced off.
--
-- Returns 1 if this outcome stands, 0 if not.
--
-- A job that is gone (Redis was emptied) cannot be told from one that ended long ago: its outcome is
-- delivered, its record is appended, and the registries stay as they are.
--
-- A large outcome has been written before, by piece.lua, and only gets its name here.

local outcome, job, inbox, started_registry, ended_registry, body, partial = unpack(KEYS)
local
  id,
  claim,
  value,  -- of the outcome; of a large one, what stands if pieces of it are missing
  last_event,  -- without the outcome
  status,  -- finished or failed
  now_text,  -- RQ's time format
  outcome_seconds,  -- that the outcome is kept
  ended_seconds,  -- that an ended job is kept
  inbox_seconds,  -- that the inbox, or the log of the call, lives on
  record,  -- of the call
  nano,  -- its cost in 1e-9 USD
  tokens,  -- that it has used
  ending,  -- beginning of the record if there is none yet: see settle in account.lua
  inside,  -- 1 if the outcome is part of the last event, 0 if that only says that there is one
  large_bytes  -- of an outcome in pieces; 0: it is not
  = unpack(ARGV)
local large = large_bytes ~= '0'

local fields = redis.call('HMGET', job, 'key', 'owner', 'scopes', 'waited_ms', 'usd', 'tokens', 'status', 'claim')
local old_status, old_claim = fields[7], fields[8]
local stands = false
if old_status and (old_status ~= 'started' or old_claim ~= claim) then
  -- somebody else's outcome stands
elseif large and redis.call('STRLEN', partial) == tonumber(large_bytes) then
  stands = redis.call('RENAMENX', partial, outcome) == 1
  redis.call('EXPIRE', outcome, outcome_seconds)
else
  stands = redis.call('SET', outcome, value, 'NX', 'EX', outcome_seconds)
end
if not stands then
  if large then redis.call('UNLINK', partial) end
  return 0
end
redis.call('XADD', inbox, '*', 'e', inside == '1' and last_event .. value or last_event)
redis.call('EXPIRE', inbox, inbox_seconds)
redis.call('UNLINK', body)
local time = redis.call('TIME')
settle(id, fields, record, ending, nano, tokens, time[1] * 1000 + math.floor(time[2] / 1000))
if not old_status then return 1 end

redis.call('HSET', job, 'status', status, 'ended_at', now_text)
redis.call('EXPIRE', job, ended_seconds)
redis.call('ZREM', started_registry, id .. ':' .. claim)
redis.call('ZADD', ended_registry, time[1] + ended_seconds, id)
return 1
