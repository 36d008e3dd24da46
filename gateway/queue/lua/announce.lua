#!lua flags=allow-oom
-- Writes the job of a running call anew, which Redis has lost. Without its key, so that nothing is booked twice: what
-- the account had of it is lost or restored.
--
-- KEYS  1 job  2 started registry
-- ARGV  1 call id  2 claim id  3 worker  4 address of its events  5 milliseconds until its deadline
--       6 seconds kept past the deadline  7 now (RQ's time format)

if redis.call('EXISTS', KEYS[1]) == 1 then return end
local time = redis.call('TIME')
local deadline_ms = time[1] * 1000 + ARGV[5]
redis.call('HSET', KEYS[1], 'status', 'started', 'worker_name', ARGV[3], 'claim', ARGV[2], 'web', ARGV[4],
  'deadline_ms', string.format('%.0f', deadline_ms), 'started_at', ARGV[7], 'created_at', ARGV[7])
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[5] / 1000) + ARGV[6])
redis.call('ZADD', KEYS[2], math.floor(deadline_ms / 1000) + ARGV[6], ARGV[1] .. ':' .. ARGV[2])
