#!lua flags=allow-oom
-- Notes which call an Idempotency-Key stands for, and what is needed to render that call, unless there is one.
--
-- KEYS  1 Idempotency-Key  2 what is needed to render the call
-- ARGV  1 call id and fingerprint of the request  2 seconds  3 value of the second key  4 seconds of that
-- Returns what was noted before; false: nothing was.

local noted = redis.call('GET', KEYS[1])
if noted and noted ~= ARGV[1] then return noted end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
return false
