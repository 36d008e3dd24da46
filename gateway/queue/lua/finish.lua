#!lua flags=allow-oom
-- Ends a call: the first outcome stands, a later one (of a worker that was given up) is fenced off.
--
-- KEYS  1 outcome  2 job  3 inbox of the web process  4 started registry  5 finished or failed registry  6 body
-- ARGV  1 call id  2 claim id  3 outcome  4 last event, without the outcome  5 'finished' or 'failed'  6 now (RQ's
--       time format)  7 seconds of the outcome  8 seconds of an ended job  9 seconds the inbox lives on
--       10 record  11 cost in 1e-9 USD  12 tokens used
--       13 beginning of the record if there is none yet: see settle in account.lua  14 1 if the outcome is part of
--       the last event, 0 if that only says that there is one
-- Returns 1 if this outcome stands, 0 if not.
--
-- A job that is gone (Redis was emptied) cannot be told from one that ended long ago: its outcome is
-- delivered, its record is appended, and the registries stay as they are.

local fields = redis.call('HMGET', KEYS[2], 'key', 'owner', 'scopes', 'waited_ms', 'usd', 'tokens', 'status', 'claim')
local status, claim = fields[7], fields[8]
if status and (status ~= 'started' or claim ~= ARGV[2]) then return 0 end
if not redis.call('SET', KEYS[1], ARGV[3], 'NX', 'EX', ARGV[7]) then return 0 end
redis.call('XADD', KEYS[3], '*', 'e', ARGV[14] == '1' and ARGV[4] .. ARGV[3] or ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[9])
redis.call('UNLINK', KEYS[6])
local time = redis.call('TIME')
settle(ARGV[1], fields, ARGV[10], ARGV[13], ARGV[11], ARGV[12], time[1] * 1000 + math.floor(time[2] / 1000))
if not status then return 1 end

redis.call('HSET', KEYS[2], 'status', ARGV[5], 'ended_at', ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[8])
redis.call('ZREM', KEYS[4], ARGV[1] .. ':' .. ARGV[2])
redis.call('ZADD', KEYS[5], time[1] + ARGV[8], ARGV[1])
return 1
