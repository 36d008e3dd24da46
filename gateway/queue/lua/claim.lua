#!lua flags=allow-oom
-- Starts up to N waiting calls for one worker, in the order of the queue.
--
-- Called again with the same claim id it returns what the first asking took, and takes nothing new;
-- and the first asking, should it arrive after the second, takes nothing either. So whichever reply
-- is lost, a call starts once. (Names of keys are made here from prefixes: no Redis Cluster.)
--
-- KEYS  1 bell  2 bytes queued  3 started registry  4 claim mark  5 RQ's list of the queue
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
local BODY, LEASE = ARGV[12], ARGV[13]
local MOST_BYTES = 1000000  -- of bodies: small calls do not wait behind several large ones
local out, count, bytes = {}, 0, 0
local taken, alive = 0, {}  -- bytes of bodies that no longer wait; web process -> 1 if it has a lease, else 0

-- `retry` is 1 for a call that may run once more; `lost_ms` is for how long its lost worker has run it.
local function add(id, web, deadline, waited_ms, cap, usd, tokens, retry, lost_ms)
  out[#out + 1] = id
  out[#out + 1] = web or ''
  out[#out + 1] = tonumber(deadline or now_ms) - now_ms
  local body = redis.pcall('GET', BODY .. id)
  out[#out + 1] = type(body) == 'string' and body
  local more = lost_ms and ',"lost_ms":' .. lost_ms or retry == '1' and ',"retry":true' or ''
  out[#out + 1] = string.format('{"cap":%s,"queued_ms":%.0f,"reserved_usd":%s,"reserved_tokens":%s%s}',
    cap or 0, waited_ms or 0, usd or 0, tokens or 0, more)
  count = count + 1
  bytes = bytes + (type(body) == 'string' and #body or 0)
end

if ARGV[3] == '1' then
  redis.call('SET', KEYS[4], 1, 'EX', ARGV[7])
  local suffix = ':' .. ARGV[1]
  for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    if string.sub(member, -#suffix) == suffix then
      local id = string.sub(member, 1, -#suffix - 1)
      add(id, unpack(redis.call('HMGET', JOB .. id, 'web', 'deadline_ms', 'waited_ms', 'cap', 'usd', 'tokens', 'retry',
        'lost_ms')))
    end
  end
  return out
end
if redis.call('EXISTS', KEYS[4]) == 1 then return out end

local virtual_time = 0
local L = redis.call('EXISTS', PAUSED) == 1 and limits()
local held, MOST_HELD = 0, 500  -- calls that are paused take this claim no longer than that
local function start(id)
  local job = JOB .. id
  -- An error would lose all ids that are popped by now: what is not ours is put aside instead.
  local fields = redis.pcall('HMGET', job, 'key', 'owner', 'scopes', 'waited_ms', 'usd', 'tokens',
    'status', 'web', 'deadline_ms', 'bytes', 'created_at', 'queued_ms', 'start', 'cap', 'retry', 'lost_ms')
  if fields.err then return end
  local status, web, deadline, bytes, created, queued_ms, virtual_start, cap, retry, lost_ms = unpack(fields, 7)
  if L and status == 'queued' and fields[1] and tonumber(deadline or 0) > now_ms then
    local pause = L.pause_of(fields[1], redis.call('HGET', job, 'stub'))
    if pause then
      L.hold(id, fields[1], fields[2], fields[3], pause, L.expiry(web, deadline + 0, ARGV[8] * 1000))
      held = held + 1
      return
    end
  end
  taken = taken + (tonumber(bytes) or 0)
  if status ~= 'queued' then return end
  if not web or not tonumber(deadline) then
    redis.call('HSET', job, 'status', 'failed')
    return
  end
  local waited_ms = math.max(now_ms - (queued_ms or now_ms) - (lost_ms or 0), 0)
  -- A logged call does not depend on the process that submitted it.
  local judged = judge and string.sub(web, 1, 4) ~= 'log:'
  if judged then alive[web] = alive[web] or redis.call('EXISTS', LEASE .. web) end
  if judged and alive[web] == 0 then
    redis.call('HSET', job, 'status', 'canceled')
    fields[4] = waited_ms
    settle(id, fields, '', '{"status":"cancelled","cancelled":true,"error_code":"web_lost"', '0', '0', now_ms)
    redis.call('EXPIRE', job, ARGV[9])
    redis.call('UNLINK', BODY .. id)
    return
  end
  virtual_time = math.max(virtual_time, virtual_start or 0)
  local now = created and created > ARGV[5] and created or ARGV[5]
  redis.call('HSET', job, 'status', 'started', 'started_at', now, 'last_heartbeat', now,
    'worker_name', ARGV[4], 'claim', ARGV[1], 'waited_ms', string.format('%.0f', waited_ms))
  redis.call('ZADD', KEYS[3], math.floor(deadline / 1000) + ARGV[8], id .. ':' .. ARGV[1])
  add(id, web, deadline, waited_ms, cap, fields[5], fields[6], retry, lost_ms)
end

local wanted = tonumber(ARGV[2])
-- What stands in the list alone was queued by the previous release.
local strays = redis.call('LLEN', KEYS[5]) - redis.call('ZCARD', WAITING)
while strays > 0 and count < wanted and bytes < MOST_BYTES do
  local id = redis.call('LINDEX', KEYS[5], 0)
  if not id or redis.call('ZSCORE', WAITING, id) then break end
  redis.call('LPOP', KEYS[5])
  start(id)
end
while count < wanted and bytes < MOST_BYTES and held < MOST_HELD do
  local id = redis.call('ZPOPMIN', WAITING)[1]
  if not id then break end
  redis.call('LREM', KEYS[5], 1, id)
  start(id)
end
if taken > 0 and redis.call('EXISTS', KEYS[2]) == 1 then redis.call('DECRBY', KEYS[2], string.format('%.0f', taken)) end
local left = redis.call('LLEN', KEYS[5])
if left == 0 then
  redis.call('DEL', KEYS[1], FAIR)
  if redis.call('EXISTS', DEFERRED) == 0 then redis.call('DEL', KEYS[2]) end
else
  if virtual_time > tonumber(redis.call('HGET', FAIR, 'V') or 0) then
    redis.call('HSET', FAIR, 'V', virtual_time)
  end
  if redis.call('LLEN', KEYS[1]) == 0 then
    redis.call('RPUSH', KEYS[1], 1)  -- somebody must come back for the rest
    redis.call('EXPIRE', KEYS[1], ARGV[10])
  end
end
return out
