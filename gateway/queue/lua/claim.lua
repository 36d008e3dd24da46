#!lua flags=allow-oom
-- Starts up to N waiting calls for one worker, in the order of the queue.
--
-- Called again with the same claim id it returns what the first asking took, and takes nothing new;
-- and the first asking, should it arrive after the second, takes nothing either. So whichever reply
-- is lost, a call starts once. (Names of keys are made here from prefixes: no Redis Cluster.)
--
-- Returns a flat list: call id, web process, milliseconds left, body (false: lost; its bytes: large, to be read apart), what
-- was admitted (JSON), ...
--
-- It may have waited behind a BLPOP: what its sender knew of the time is up to a second old.

local bell, queued_bytes, started_registry, claim_mark, queue = unpack(KEYS)
local
  claim,  -- id of this claim
  slots,  -- calls that the worker can take
  again,  -- 1 if asked again
  worker,
  now_text,  -- RQ's time format
  judge_until_ms,  -- since 1970, until when web processes without a lease may be taken for dead
  mark_seconds,  -- that the claim mark lives
  grace_seconds,  -- that a call is kept past its deadline
  ended_seconds,  -- that an ended job is kept
  lease_prefix  -- of the names of web processes' leases
  = unpack(ARGV)

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local judge = now_ms <= tonumber(judge_until_ms)
local MOST_BYTES = 1000000  -- of bodies: other workers take the next large ones
local LARGE_BYTES = 256000  -- of a body, above which the calls beside it would wait for it
local out, count, bytes = {}, 0, 0
local taken, alive = 0, {}  -- bytes of bodies that no longer wait; web process -> 1 if it has a lease, else 0

-- `retry` is 1 for a call that may run once more; `lost_ms` is for how long its lost worker has run it.
local function add(id, web, deadline, waited_ms, cap, usd, tokens, retry, lost_ms, size)
  out[#out + 1] = id
  out[#out + 1] = web or ''
  out[#out + 1] = tonumber(deadline or now_ms) - now_ms
  size = tonumber(size) or 0
  local body = size <= LARGE_BYTES and redis.pcall('GET', CALL .. id)
  out[#out + 1] = size > LARGE_BYTES and size or type(body) == 'string' and body
  local more = lost_ms and ',"lost_ms":' .. lost_ms or retry == '1' and ',"retry":true' or ''
  out[#out + 1] = string.format('{"cap":%s,"queued_ms":%.0f,"reserved_usd":%s,"reserved_tokens":%s%s}',
    cap or 0, waited_ms or 0, usd or 0, tokens or 0, more)
  count = count + 1
  bytes = bytes + size
end

if again == '1' then
  redis.call('SET', claim_mark, 1, 'EX', mark_seconds)
  local suffix = ':' .. claim
  for _, member in ipairs(redis.call('ZRANGE', started_registry, 0, -1)) do
    if string.sub(member, -#suffix) == suffix then
      local id = string.sub(member, 1, -#suffix - 1)
      add(id, unpack(redis.call('HMGET', JOB .. id, 'web', 'deadline_ms', 'waited_ms', 'cap', 'usd', 'tokens', 'retry',
        'lost_ms', 'bytes')))
    end
  end
  return out
end
if redis.call('EXISTS', claim_mark) == 1 then return out end

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
      L.hold(id, fields[1], fields[2], fields[3], pause, L.expiry(web, deadline + 0, grace_seconds * 1000))
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
  if judged then alive[web] = alive[web] or redis.call('EXISTS', lease_prefix .. web) end
  if judged and alive[web] == 0 then
    redis.call('HSET', job, 'status', 'canceled')
    fields[4] = waited_ms
    settle(id, fields, '', '{"status":"cancelled","cancelled":true,"error_code":"web_lost"', '0', '0', now_ms)
    redis.call('EXPIRE', job, ended_seconds)
    redis.call('UNLINK', CALL .. id)
    return
  end
  virtual_time = math.max(virtual_time, virtual_start or 0)
  local now = created and created > now_text and created or now_text
  redis.call('HSET', job, 'status', 'started', 'started_at', now, 'last_heartbeat', now,
    'worker_name', worker, 'claim', claim, 'waited_ms', string.format('%.0f', waited_ms))
  redis.call('ZADD', started_registry, math.floor(deadline / 1000) + grace_seconds, id .. ':' .. claim)
  add(id, web, deadline, waited_ms, cap, fields[5], fields[6], retry, lost_ms, bytes)
end

local wanted = tonumber(slots)
-- What stands in the list alone was queued by the previous release.
local strays = redis.call('LLEN', queue) - redis.call('ZCARD', WAITING)
while strays > 0 and count < wanted and bytes < MOST_BYTES do
  local id = redis.call('LINDEX', queue, 0)
  if not id or redis.call('ZSCORE', WAITING, id) then break end
  redis.call('LPOP', queue)
  start(id)
end
while count < wanted and bytes < MOST_BYTES and held < MOST_HELD do
  local id = redis.call('ZPOPMIN', WAITING)[1]
  if not id then break end
  redis.call('LREM', queue, 1, id)
  start(id)
end
if taken > 0 and redis.call('EXISTS', queued_bytes) == 1 then
  redis.call('DECRBY', queued_bytes, string.format('%.0f', taken))
end
local left = redis.call('LLEN', queue)
if left == 0 then
  redis.call('DEL', bell, FAIR)
  if redis.call('EXISTS', DEFERRED) == 0 then redis.call('DEL', queued_bytes) end
else
  if virtual_time > tonumber(redis.call('HGET', FAIR, 'V') or 0) then
    redis.call('HSET', FAIR, 'V', virtual_time)
  end
  if redis.call('LLEN', bell) == 0 then
    redis.call('RPUSH', bell, 1)  -- somebody must come back for the rest
    redis.call('EXPIRE', bell, SHARED_SECONDS)
  end
end
return out
