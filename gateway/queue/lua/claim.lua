#!lua flags=allow-oom
-- Starts up to N waiting calls for one worker, from an ordered list of queues.
--
-- Called again with the same claim id it returns what the first asking took, and takes nothing new;
-- and the first asking, should it arrive after the second, takes nothing either. So whichever reply
-- is lost, a call starts once. (Names of keys are made here from prefixes: no Redis Cluster.)
--
-- KEYS  1 bell  2 bytes queued  3 started registry  4 claim mark  5... queues
-- ARGV  1 claim id  2 how many  3 1 if asked again  4 worker  5 now (RQ's time format)
--       6 milliseconds since 1970 until when web processes without a lease may be taken for dead
--       7 seconds of the claim mark  8 seconds kept past the deadline  9 seconds an ended job is kept
--       10 seconds of a bell that is rung again  11... prefixes of the names of: job, body, lease
-- Returns a flat list: call id, web process, milliseconds left, body (false: lost), what was admitted (JSON), ...
--
-- It may have waited behind a BLPOP: what its sender knew of the time is up to a second old.

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local judge = now_ms <= tonumber(ARGV[6])
local JOB, BODY, LEASE = ARGV[11], ARGV[12], ARGV[13]
local out = {}

local function add(id, web, deadline, queued_ms)
  out[#out + 1] = id
  out[#out + 1] = web or ''
  out[#out + 1] = tonumber(deadline or now_ms) - now_ms
  local body = redis.pcall('GET', BODY .. id)
  out[#out + 1] = type(body) == 'string' and body
  out[#out + 1] = string.format('{"cap":0,"queued_ms":%d,"reserved_usd":0,"reserved_tokens":0}',
    math.max(now_ms - (queued_ms or now_ms), 0))
end

if ARGV[3] == '1' then
  redis.call('SET', KEYS[4], 1, 'EX', ARGV[7])
  local suffix = ':' .. ARGV[1]
  for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    if string.sub(member, -#suffix) == suffix then
      local id = string.sub(member, 1, -#suffix - 1)
      add(id, unpack(redis.call('HMGET', JOB .. id, 'web', 'deadline_ms', 'queued_ms')))
    end
  end
  return out
end
if redis.call('EXISTS', KEYS[4]) == 1 then return out end

local function start(id)
  local job = JOB .. id
  -- An error would lose all ids that are popped by now: what is not ours is put aside instead.
  local fields = redis.pcall('HMGET', job, 'status', 'web', 'deadline_ms', 'bytes', 'created_at', 'queued_ms')
  if fields.err then return end
  local status, web, deadline, bytes, created, queued_ms = unpack(fields)
  if bytes and redis.call('EXISTS', KEYS[2]) == 1 then redis.call('DECRBY', KEYS[2], bytes) end
  if status ~= 'queued' then return end
  if not web or not tonumber(deadline) then
    redis.call('HSET', job, 'status', 'failed')
    return
  end
  if judge and redis.call('EXISTS', LEASE .. web) == 0 then
    redis.call('HSET', job, 'status', 'canceled')
    redis.call('EXPIRE', job, ARGV[9])
    redis.call('UNLINK', BODY .. id)
    return
  end
  local now = created and created > ARGV[5] and created or ARGV[5]
  redis.call('HSET', job, 'status', 'started', 'started_at', now, 'last_heartbeat', now,
    'worker_name', ARGV[4], 'claim', ARGV[1])
  redis.call('ZADD', KEYS[3], math.floor(deadline / 1000) + ARGV[8], id .. ':' .. ARGV[1])
  add(id, web, deadline, queued_ms)
end

local wanted = tonumber(ARGV[2])
local left = 0
for queue = 5, #KEYS do
  while #out < wanted * 5 do
    local ids = redis.call('LPOP', KEYS[queue], wanted - #out / 5)
    if not ids then break end
    for _, id in ipairs(ids) do start(id) end
  end
  left = left + redis.call('LLEN', KEYS[queue])
end
if left == 0 then
  redis.call('DEL', KEYS[1], KEYS[2])
elseif redis.call('LLEN', KEYS[1]) == 0 then
  redis.call('RPUSH', KEYS[1], 1)  -- somebody must come back for the rest
  redis.call('EXPIRE', KEYS[1], ARGV[10])
end
return out
