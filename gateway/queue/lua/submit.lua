#!lua flags=allow-oom
-- Accepts a call: all or nothing. Called again for the same call it answers the same.
--
-- Returns a list: 'ok' and what was admitted, as JSON; or the reason of the refusal, which is one of 'key',
-- 'expired', 'disabled', 'changed' (the key's record), 'late', 'cancelled', 'records', 'limit', 'calls', 'bytes',
-- 'memory', 'large'. 'limit' is followed by JSON: name and scope of the limit, milliseconds until it resets (0 if that
-- is unknown), unit and window of a budget, and whether the call alone exceeds it. 'calls', 'bytes' and 'memory' are
-- followed by how many calls wait, 'large' by the bytes that never fit.

local job, stored_body, key_record, cancel_mark, queue, queued_bytes, rq_queues = unpack(KEYS)
local
  id,
  payload,  -- CallSpec and body
  secret_hmac,  -- HMAC of the key's secret
  key_version,  -- of the key's record
  web,  -- web process, or log of the call
  budget_ms,  -- until the deadline
  most_calls, most_bytes,  -- that may be queued
  created_at,  -- RQ's time format
  rq_data,  -- RQ's form of a call
  grace_seconds,  -- that body and reservation are kept past the deadline
  origin,  -- name of the queue
  late_ms,  -- since 1970, by this clock, after which nobody waits for the reply (0: somebody always does)
  kind,  -- of call, for `rq info`
  ended_seconds,  -- that an ended job is kept
  most_records,  -- that may wait for the ledger
  unsettled_seconds,  -- that the job of a call is kept which nobody settled
  stub,  -- beginning of the call's record: see account.lua
  public_id,  -- of the API key
  call_priority,  -- '': its key's
  asked,  -- of limits: tokens of the prompt, their cost, tokens of output to reserve, the cost of one, most tokens of
          -- output (0: unknown), 1 to wait in flight or 0, with blanks between
  hit_record,  -- record of a call that a kept response answers ('': none does)
  delay_ms,  -- until it may start
  may_run_again  -- 1 if it may run once more, where there is room for its body, 0 if not: see retry.lua
  = unpack(ARGV, 1, 24)
-- The rest of ARGV are events of the log of a call that a kept response answers.
budget_ms, delay_ms, late_ms = tonumber(budget_ms), tonumber(delay_ms), tonumber(late_ms)
most_calls, most_bytes, most_records = tonumber(most_calls), tonumber(most_bytes), tonumber(most_records)

-- How many calls of another key, at the weight 1, a call lets go before it.
local OFFSETS = {interactive = 0, standard = 8, batch = 64}
-- Output that a call of unknown length is taken for, where a budget has less left.
local LONGEST_OUTPUT = 131072

-- Bodies of this size cannot fill that much memory in that many milliseconds.
local SMALL_BYTES, MUCH_BYTES, MEMORY_MS = 64000, 128000000, 250
-- Share of Redis' memory above which no body stays for a second run: it would take the room of waiting calls and logs.
local RETRY_SHARE = 0.4

local status, admitted = unpack(redis.call('HMGET', job, 'status', 'admission'))
admitted = admitted
  or '{"requests":null,"tokens":null,"cap":0,"parked":false,"reserved_usd":0,"reserved_tokens":0}'
if status then return {'ok', admitted} end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if late_ms > 0 and now_ms > late_ms then return {'late'} end

local hmac, old, old_until, revoked, expires, disabled, version, owner, rpm, tpm, max_in_flight, max_waiting, limit,
  priority, weight, last_used = unpack(redis.call('HMGET', key_record, 'hmac', 'hmac_old', 'hmac_old_until', 'revoked',
  'expires', 'disabled', 'version', 'owner', 'rpm', 'tpm', 'max_in_flight', 'max_waiting', 'limit', 'priority',
  'weight', 'last_used'))
if not hmac or revoked then return {'key'} end
if hmac ~= secret_hmac and not (old == secret_hmac and time[1] < (old_until or '0')) then return {'key'} end
if expires and tonumber(time[1]) >= tonumber(expires) then return {'expired'} end
if disabled then return {'disabled'} end
if (version or '0') ~= key_version then return {'changed'} end
if redis.call('EXISTS', cancel_mark) == 1 then return {'cancelled'} end

local hit = hit_record ~= ''
local aside = redis.call('ZCARD', DEFERRED)
local waiting = redis.call('LLEN', queue) + aside
if not hit and waiting >= most_calls then return {'calls', waiting} end
local queued = waiting > 0 and math.max(tonumber(redis.call('GET', queued_bytes) or 0) or 0, 0) or 0
if not hit and queued + #payload > most_bytes and waiting > 0 then return {'bytes', waiting} end
-- A key may have seven times as much in the queue as is free, so that the next key always finds room. How many of
-- its calls wait is the distance of its virtual time from the queue's.
if not hit and waiting > 0 and (waiting * 8 > most_calls * 7 or (queued + #payload) * 8 > most_bytes * 7) then
  local V, F = unpack(redis.call('HMGET', FAIR, 'V', public_id))
  local own = math.max((F or 0) - (V or 0), 0) * (weight or 1)
    + redis.call('ZCARD', PARKED_CALLS .. public_id) + redis.call('ZCARD', SCHEDULED_CALLS .. public_id)
  if own > 7 * (most_calls - waiting) or own / waiting * queued > 7 * (most_bytes - queued - #payload) then
    return {'calls', waiting}
  end
end
-- Scheduled and paused calls wait long: they may fill half of the queue, so that there is room for the others.
if aside > 0 and not hit and (aside * 2 >= most_calls or (queued + #payload) * 2 > most_bytes) then
  if delay_ms > 0 or redis.call('EXISTS', PAUSED) == 1 and limits().pause_of(public_id, stub) then
    return {'calls', waiting}
  end
end
-- To ask for the memory takes Redis as long as half of this script. If there was much room a moment ago, small bodies
-- have not filled it since.
local size, may_retry = #payload, may_run_again == '1'
if size > SMALL_BYTES or redis.call('EXISTS', MEMORY) == 0 then
  local memory = redis.call('INFO', 'memory')
  local maximum = tonumber(string.match(memory, '\nmaxmemory:(%d+)') or 0)
  local room = math.huge
  if maximum > 0 then
    -- The buffers of the connection and of this script hold the body twice now, which passes.
    local share, passing = maximum * 0.8, size * 2
    if passing > share then return {'large', math.floor(share / 2)} end
    room = share - (tonumber(string.match(memory, '\nused_memory:(%d+)')) - passing) - size
    if room < 0 then return {'memory', waiting} end
    may_retry = may_retry and room > share - maximum * RETRY_SHARE
  end
  if room > MUCH_BYTES then redis.call('SET', MEMORY, 1, 'PX', MEMORY_MS) end
end
if redis.call('XLEN', RECORDS) >= most_records then return {'records'} end

owner = owner or ''
-- The scopes that have limits.
local scopes = {}
if rpm or tpm or max_in_flight or max_waiting or limit then
  scopes[1] = {letter = 'k', name = 'key', id = public_id, record = key_record, rpm = tonumber(rpm),
    tpm = tonumber(tpm), max_in_flight = tonumber(max_in_flight), max_waiting = tonumber(max_waiting),
    limit = tonumber(limit)}
end
if owner ~= '' then
  disabled, rpm, tpm, max_in_flight, max_waiting, limit = unpack(redis.call('HMGET', OWNER .. owner, 'disabled', 'rpm',
    'tpm', 'max_in_flight', 'max_waiting', 'limit'))
  if disabled then return {'disabled'} end
  if rpm or tpm or max_in_flight or max_waiting or limit then
    scopes[#scopes + 1] = {letter = 'o', name = 'owner', id = 'owner:' .. owner, record = OWNER .. owner,
      rpm = tonumber(rpm), tpm = tonumber(tpm), max_in_flight = tonumber(max_in_flight),
      max_waiting = tonumber(max_waiting), limit = tonumber(limit)}
  end
end

local L = #scopes > 0 and limits()

-- Checks all limits; returns nil if the call is admitted, and the refusal otherwise. It changes nothing.
local wait_in_line, reserved_usd, reserved_tokens, cap = false, 0, 0, 0
local function check()
  local prompt_tokens, prompt_nano, output, per_token, most, wait =
    string.match(asked, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  prompt_tokens, prompt_nano, output = tonumber(prompt_tokens), tonumber(prompt_nano), tonumber(output)
  per_token, most = tonumber(per_token), tonumber(most)

  local function refuse(name, scope, allowed, reset_ms, unit, window, never)
    return {'limit', string.format(
      '{"name":"%s","scope":"%s","limit":%.0f,"reset_ms":%.0f,"unit":%s,"window":%s,"never":%s}', name, scope.name,
      allowed, math.ceil(reset_ms or 0), unit and '"' .. unit .. '"' or 'null',
      window and '"' .. window .. '"' or 'null', tostring(never or false))}
  end
  -- GCRA: `tat` is when the whole minute's allowance will be there again, if nothing more is used.
  local function after(tat, allowed, number)
    return math.max(tat or 0, now_ms) + number * MINUTE / allowed
  end
  local function too_soon(tat) return tat - now_ms - MINUTE > 0.001 end

  for _, scope in ipairs(scopes) do
    if scope.rpm or scope.tpm then
      scope.rpm_tat, scope.tpm_tat = unpack(redis.call('HMGET', RATE .. scope.id, 'rpm', 'tpm'))
    end
    if scope.rpm then
      local tat = after(scope.rpm_tat, scope.rpm, 1)
      if too_soon(tat) then return refuse('requests_per_minute', scope, scope.rpm, tat - now_ms - MINUTE) end
      scope.rpm_tat = tat
    end
  end

  -- What is left of a budget buys so much output.
  local buys = math.huge
  for _, scope in ipairs(scopes) do
    if scope.limit then
      local unit, reset, extra, until_ = unpack(
        redis.call('HMGET', scope.record, 'limit_unit', 'limit_reset', 'limit_extra', 'limit_extra_until'))
      unit = unit or 'usd'
      local day, week, month = windows(time[1])
      local prefix, window = L.window_of(reset, day, week, month)
      local number, spent = unpack(redis.call('HMGET', SPEND .. scope.id, string.sub(prefix, 1, 1), prefix .. unit))
      if prefix ~= '' and number ~= tostring(window) then spent = 0 end
      local held = redis.call('HGET', HELD .. scope.id, unit)
      local left = L.limit_now(scope.limit, extra, until_, time[1] + 0) - (spent or 0) - (held or 0)
      local prompt, one = prompt_nano, per_token
      if unit == 'tokens' then prompt, one = prompt_tokens, 1 end
      if left < prompt + (output > 0 and one or 0) then
        return refuse('limit', scope, scope.limit, L.window_end(reset, day, week, month, now_ms), unit, reset)
      end
      if one > 0 then buys = math.min(buys, math.max(math.floor((left - prompt) / one), 1)) end
    end
  end
  output = math.min(output, buys)
  if output > 0 and buys < (most > 0 and most or LONGEST_OUTPUT) then cap = buys end

  -- A guess of the output alone must not refuse a call.
  for _, scope in ipairs(scopes) do
    if scope.tpm then output = math.min(output, math.max(scope.tpm - prompt_tokens, 0)) end
  end
  reserved_tokens = prompt_tokens + output
  reserved_usd = prompt_nano + math.ceil(output * per_token)
  for _, scope in ipairs(scopes) do
    if scope.tpm then
      local tat = after(scope.tpm_tat, scope.tpm, reserved_tokens)
      if reserved_tokens > scope.tpm or too_soon(tat) then
        local never = reserved_tokens > scope.tpm  -- this call alone exceeds it
        return refuse('tokens_per_minute', scope, scope.tpm, not never and tat - now_ms - MINUTE, nil, nil, never)
      end
      scope.tpm_tat = tat
    end
  end

  if hit then return end  -- nothing of it will be in flight
  for _, scope in ipairs(scopes) do
    if scope.max_in_flight and delay_ms == 0 then
      -- A call waits behind those of its own key. Those of its owner's other keys may wait for room of theirs.
      local full = redis.call('ZCARD', FLIGHT .. scope.id) >= scope.max_in_flight
        or scope.letter == 'k' and redis.call('EXISTS', PARKED_CALLS .. scope.id) == 1
      if full and wait ~= '1' then return refuse('max_in_flight', scope, scope.max_in_flight) end
      wait_in_line = wait_in_line or full
    end
  end
  for _, scope in ipairs(scopes) do
    local line = wait_in_line and PARKED_CALLS or delay_ms > 0 and SCHEDULED_CALLS
    if line and scope.max_waiting and redis.call('ZCARD', line .. scope.id) >= scope.max_waiting then
      return refuse('max_waiting', scope, scope.max_waiting)
    end
  end
end

local letters = ''
local use_rates, described
if #scopes > 0 then
  for _, scope in ipairs(scopes) do
    letters = letters .. scope.letter
    if scope.limit or scope.max_in_flight then L.expire(scope.id, now_ms) end
  end
  local refusal = check()
  if refusal then return refusal end

  use_rates = function(scope)
    local values = {}
    if scope.rpm then values = {'rpm', scope.rpm_tat} end
    if scope.tpm then values[#values + 1], values[#values + 2] = 'tpm', scope.tpm_tat end
    if #values == 0 then return end
    redis.call('HSET', RATE .. scope.id, unpack(values))
    local full = math.max(scope.rpm_tat or 0, scope.tpm_tat or 0)
    redis.call('PEXPIRE', RATE .. scope.id, math.max(math.ceil(full - now_ms), 0) + 1)
  end

  -- Of key and owner the one that has less left.
  local function tightest(limit_name, tat_name)
    local best
    for _, scope in ipairs(scopes) do
      local allowed, tat = scope[limit_name], scope[tat_name]
      if allowed then
        local reset = math.max(tat - now_ms, 0)
        local left = math.max(math.floor((MINUTE - reset) * allowed / MINUTE + 0.001), 0)
        if not best or left < best[2] then best = {allowed, left, math.ceil(reset)} end
      end
    end
    return best and string.format('[%.0f,%.0f,%.0f]', unpack(best)) or 'null'
  end
  described = function()
    return string.format(
      '{"requests":%s,"tokens":%s,"cap":%.0f,"parked":%s,"reserved_usd":%.0f,"reserved_tokens":%.0f}',
      tightest('rpm', 'rpm_tat'), tightest('tpm', 'tpm_tat'), cap, tostring(wait_in_line), reserved_usd,
      reserved_tokens)
  end
end

if hit then
  -- It is one more request, and settled at once. The job makes a second run of this script answer the same, and with
  -- its stub the call is known until the ledger has its record.
  for _, scope in ipairs(scopes) do use_rates(scope) end
  if #scopes > 0 then admitted = described() end
  redis.call('HSET', job, 'status', 'finished', 'created_at', created_at, 'data', rq_data, 'admission', admitted,
    'stub', stub)
  redis.call('EXPIRE', job, ended_seconds)
  if last_used ~= time[1] then redis.call('HSET', key_record, 'last_used', time[1]) end
  settle(id, {public_id, owner}, hit_record, '', 0, 0, now_ms)
  for i = 25, #ARGV do redis.call('XADD', LOG .. id, '*', 'e', ARGV[i]) end
  if ARGV[25] then redis.call('EXPIRE', LOG .. id, string.match(web, '^log:(%d+):')) end
  return {'ok', admitted}
end

local life = budget_ms + grace_seconds * 1000
redis.call('SET', stored_body, payload, 'PX', life)
local offset = math.max(OFFSETS[priority] or 8, OFFSETS[call_priority] or 0)
weight = tonumber(weight or 1)
local at_once, start = not wait_in_line and delay_ms == 0, 0
if at_once then start = enqueue(id, public_id, weight, offset) end
redis.call('HSET', job,
  'status', wait_in_line and 'deferred' or 'queued', 'origin', origin, 'data', rq_data, 'description', kind,
  'created_at', created_at, 'enqueued_at', created_at,
  'timeout', math.ceil(budget_ms / 1000), 'result_ttl', ended_seconds, 'failure_ttl', ended_seconds,
  'web', web, 'deadline_ms', string.format('%.0f', now_ms + budget_ms), 'bytes', #payload,
  'key', public_id, 'owner', owner, 'queued_ms', string.format('%.0f', now_ms), 'start', start, 'stub', stub,
  'offset', offset)
if may_retry then redis.call('HSET', job, 'retry', 1) end
if delay_ms > 0 then
  L = L or limits()
  local expiry_ms = L.expiry(web, now_ms + budget_ms, grace_seconds * 1000)
  L.schedule(id, public_id, owner, now_ms + delay_ms, expiry_ms)
end
redis.call('EXPIRE', job, math.ceil(budget_ms / 1000) + unsettled_seconds)
if last_used ~= time[1] then redis.call('HSET', key_record, 'last_used', time[1]) end
if waiting == aside then redis.call('SADD', rq_queues, queue) end
redis.call('SET', queued_bytes, queued + #payload, 'EX', SHARED_SECONDS)
if #scopes == 0 then return {'ok', admitted} end

local expiry_ms = string.format('%.0f', now_ms + life)
for _, scope in ipairs(scopes) do
  use_rates(scope)
  if scope.limit then
    redis.call('HSET', HELD .. scope.id, id, string.format('%.0f %.0f', reserved_usd, reserved_tokens))
    redis.call('HINCRBY', HELD .. scope.id, 'usd', string.format('%.0f', reserved_usd))
    redis.call('HINCRBY', HELD .. scope.id, 'tokens', string.format('%.0f', reserved_tokens))
    redis.call('EXPIRE', HELD .. scope.id, SHARED_SECONDS)
  end
  if at_once and (scope.limit or scope.max_in_flight) then L.fly(scope.id, id, expiry_ms) end
end
admitted = described()
redis.call('HSET', job, 'scopes', letters, 'expiry_ms', expiry_ms, 'cap', cap,
  'usd', string.format('%.0f', reserved_usd), 'tokens', string.format('%.0f', reserved_tokens),
  'admission', admitted)
if wait_in_line then
  L.park(id, public_id, owner, L.expiry(web, now_ms + budget_ms, grace_seconds * 1000))
  L.promote(public_id, owner)  -- expired calls may have made room, or a limit was raised
  wait_in_line = redis.call('HGET', job, 'status') == 'deferred'
  if not wait_in_line then
    admitted = described()
    redis.call('HSET', job, 'admission', admitted)
  end
end
return {'ok', admitted}
