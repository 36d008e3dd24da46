#!lua flags=allow-oom
-- Accepts a call: all or nothing. Called again for the same call it answers the same.
--
-- KEYS  1 job  2 body  3 API key's record  4 cancel mark  5 queue  6 bell  7 bytes queued  8 rq:queues
--       9 records
-- ARGV  1 call id  2 CallSpec and body  3 HMAC of the key's secret  4 web process  5 milliseconds until the deadline
--       6 most calls queued  7 most bytes queued  8 created (RQ's time format)  9 RQ's job data
--       10 seconds kept past the deadline  11 origin (queue name)
--       12 seconds that what all calls share lives on  13 milliseconds since 1970, by this clock,
--       after which nobody waits for the reply (0: somebody always does)  14 kind of call, for `rq info`
--       15 seconds an ended job is kept  16 version of the key's record  17 most records  18 stub
--       19 record of a call that a kept response answers ('': none does)
-- Returns a list: 'ok' and what was admitted, as JSON; or the reason of the refusal, which is one of 'key',
-- 'expired', 'disabled', 'changed' (the key's record), 'late', 'cancelled', 'records', 'limit', 'calls', 'bytes',
-- 'memory', 'large'. 'limit' is followed by JSON, 'calls', 'bytes' and 'memory' by how many calls wait, 'large' by
-- the bytes that never fit.

local ADMITTED = '{"requests":null,"tokens":null,"cap":0,"parked":false,"reserved_usd":0,"reserved_tokens":0}'
if redis.call('EXISTS', KEYS[1]) == 1 then return {'ok', ADMITTED} end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[13]) > 0 and now_ms > tonumber(ARGV[13]) then return {'late'} end
local secret, revoked, expires, disabled, version, owner = unpack(
  redis.call('HMGET', KEYS[3], 'hmac', 'revoked', 'expires', 'disabled', 'version', 'owner'))
if not secret or secret ~= ARGV[3] or revoked then return {'key'} end
if expires and time[1] >= expires then return {'expired'} end
if disabled then return {'disabled'} end
if (version or '0') ~= ARGV[16] then return {'changed'} end
if redis.call('EXISTS', KEYS[4]) == 1 then return {'cancelled'} end

if redis.call('XLEN', KEYS[9]) >= tonumber(ARGV[17]) then return {'records'} end
if ARGV[19] ~= '' then
  -- Settled at once. The job only makes a second run of this script answer the same.
  redis.call('HSET', KEYS[1], 'status', 'finished', 'created_at', ARGV[8], 'data', ARGV[9])
  redis.call('EXPIRE', KEYS[1], ARGV[15])
  redis.call('HSET', KEYS[3], 'last_used', time[1])
  redis.call('XADD', KEYS[9], '*', 'r', ARGV[19], 'q', '{}')
  return {'ok', ADMITTED}
end

local waiting = redis.call('LLEN', KEYS[5])
if waiting >= tonumber(ARGV[6]) then return {'calls', waiting} end
local queued = waiting > 0 and math.max(tonumber(redis.call('GET', KEYS[7]) or 0) or 0, 0) or 0
if queued + #ARGV[2] > tonumber(ARGV[7]) and waiting > 0 then return {'bytes', waiting} end
local memory = redis.call('INFO', 'memory')
local limit = tonumber(string.match(memory, '\nmaxmemory:(%d+)') or 0)
if limit > 0 then
  -- The buffers of the connection and of this script hold the body twice now, which passes.
  local share, passing = limit * 0.8, #ARGV[2] * 2
  if passing > share then return {'large', math.floor(share / 2)} end
  local used = tonumber(string.match(memory, '\nused_memory:(%d+)')) - passing
  if used + #ARGV[2] > share then return {'memory', waiting} end
end
local budget = tonumber(ARGV[5])
local life = budget + ARGV[10] * 1000
redis.call('SET', KEYS[2], ARGV[2], 'PX', life)
redis.call('HSET', KEYS[1],
  'status', 'queued', 'origin', ARGV[11], 'data', ARGV[9], 'description', ARGV[14],
  'created_at', ARGV[8], 'enqueued_at', ARGV[8],
  'timeout', math.ceil(budget / 1000), 'result_ttl', ARGV[15], 'failure_ttl', ARGV[15],
  'web', ARGV[4], 'deadline_ms', string.format('%d', now_ms + budget), 'bytes', #ARGV[2],
  'key', string.match(KEYS[3], '%w+$'), 'owner', owner or '', 'queued_ms', string.format('%d', now_ms), 'stub', ARGV[18])
redis.call('PEXPIRE', KEYS[1], life)
redis.call('HSET', KEYS[3], 'last_used', time[1])
redis.call('SADD', KEYS[8], KEYS[5])
redis.call('RPUSH', KEYS[5], ARGV[1])
redis.call('SET', KEYS[7], queued + #ARGV[2], 'EX', ARGV[12])
-- A bell nobody answers must not grow: this many tokens wake every worker there is.
if redis.call('LLEN', KEYS[6]) < 64 then redis.call('RPUSH', KEYS[6], 1) end
redis.call('EXPIRE', KEYS[6], ARGV[12])
return {'ok', ADMITTED}
