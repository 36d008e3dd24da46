-- What submit, claim, finish, cancel and promote share: the order of the queue, what is in flight, and settlement.
-- scripts.py puts it before them and replaces the names that begin with a dollar by those of keys.py.
--
-- A scope is a key (its public id) or an owner ('owner:' and its id). Money is in integers of 1e-9 USD; sums are
-- exact up to 2^53. Each function is safe for a call that has ended or that is not known.

local BELL, CALL, DEFERRED, FAIR, FLIGHT, HELD, JOB = $BELL, $CALL, $DEFERRED, $FAIR, $FLIGHT, $HELD, $JOB
local KEY, QUEUED_BYTES, RQ_CANCELED = $KEY, $QUEUED_BYTES, $RQ_CANCELED
local OWNER, PARKED, PARKED_CALLS, RATE, RQ_QUEUE, SPEND = $OWNER, $PARKED, $PARKED_CALLS, $RATE, $RQ_QUEUE, $SPEND
local TURNS, WAITING, RECORDS, SHARED_SECONDS = $TURNS, $WAITING, $RECORDS, $SHARED_SECONDS
local MINUTE = 60000

-- Puts a call into the queue, for which its key has `weight`, behind `offset` calls of others, and rings the bell.
-- Start-time fair queuing: a call starts at the queue's virtual time, or when the call of its key before it ends.
-- Returns its virtual start.
local function enqueue(id, public_id, weight, offset)
  local V, F, number = unpack(redis.call('HMGET', FAIR, 'V', public_id, 'number'))
  local start = math.max(V or 0, F or 0)
  number = (number or 0) + 1
  redis.call('HSET', FAIR, public_id, start + 1 / weight, 'number', number)
  redis.call('EXPIRE', FAIR, SHARED_SECONDS)
  -- Of calls with the same start the oldest goes first.
  redis.call('ZADD', WAITING, start + offset + number * 1e-9, id)
  redis.call('RPUSH', RQ_QUEUE, id)
  -- A bell nobody answers must not grow: this many tokens wake every worker there is.
  if redis.call('LLEN', BELL) < 64 then redis.call('RPUSH', BELL, 1) end
  redis.call('EXPIRE', BELL, SHARED_SECONDS)
  return start
end

local function fly(scope, id, expiry_ms)
  redis.call('ZADD', FLIGHT .. scope, expiry_ms, id)
  redis.call('EXPIRE', FLIGHT .. scope, SHARED_SECONDS)
end

-- Gives back what a call holds of a scope.
local function release(scope, id)
  redis.call('ZREM', FLIGHT .. scope, id)
  local held = redis.call('HGET', HELD .. scope, id)
  if held then
    local usd, tokens = string.match(held, '^(%d+) (%d+)$')
    redis.call('HDEL', HELD .. scope, id)
    redis.call('HINCRBY', HELD .. scope, 'usd', string.format('%.0f', 0 - usd))
    redis.call('HINCRBY', HELD .. scope, 'tokens', string.format('%.0f', 0 - tokens))
  end
end

-- Releases the calls of a scope that nobody settled in time.
local function expire(scope, now_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', FLIGHT .. scope, '-inf', now_ms, 'LIMIT', 0, 1000)) do
    release(scope, id)
  end
end

local function park(id, public_id, owner, expiry_ms, time)
  local order = time[1] * 1e6 + time[2]
  redis.call('ZADD', PARKED_CALLS .. public_id, order, id)
  redis.call('ZADD', DEFERRED, math.ceil(expiry_ms / 1000), id)
  redis.call('HSET', PARKED, public_id, owner)
  if owner == '' then return end
  redis.call('ZADD', PARKED_CALLS .. 'owner:' .. owner, order, id)
  if not redis.call('ZSCORE', TURNS .. owner, public_id) then
    local least = redis.call('ZRANGE', TURNS .. owner, 0, 0, 'WITHSCORES')
    redis.call('ZADD', TURNS .. owner, least[2] or 0, public_id)
  end
end

local function unpark(id, public_id, owner)
  redis.call('ZREM', PARKED_CALLS .. public_id, id)
  redis.call('ZREM', DEFERRED, id)
  local empty = redis.call('EXISTS', PARKED_CALLS .. public_id) == 0
  if empty then redis.call('HDEL', PARKED, public_id) end
  if owner == '' then return end
  redis.call('ZREM', PARKED_CALLS .. 'owner:' .. owner, id)
  if empty then redis.call('ZREM', TURNS .. owner, public_id) end
end

-- Queues the parked calls of a key, or of all keys of its owner, for which there is room in flight now.
-- Keys of an owner take turns by their weights.
local function promote(public_id, owner)
  if redis.call('EXISTS', DEFERRED) == 0 then return end
  local owner_limit = owner ~= '' and redis.call('HGET', OWNER .. owner, 'max_in_flight')
  while not owner_limit or redis.call('ZCARD', FLIGHT .. 'owner:' .. owner) < tonumber(owner_limit) do
    local candidates = owner == '' and {public_id} or redis.call('ZRANGE', TURNS .. owner, 0, -1)
    local key, weight, id
    for _, candidate in ipairs(candidates) do
      local limit
      limit, weight = unpack(redis.call('HMGET', KEY .. candidate, 'max_in_flight', 'weight'))
      if not limit or redis.call('ZCARD', FLIGHT .. candidate) < tonumber(limit) then
        key, id = candidate, redis.call('ZRANGE', PARKED_CALLS .. candidate, 0, 0)[1]
        if id then break end
      end
    end
    if not id then return end
    weight = tonumber(weight or 1)
    local status, call_owner, scopes, offset, deadline =
      unpack(redis.call('HMGET', JOB .. id, 'status', 'owner', 'scopes', 'offset', 'expiry_ms'))
    unpark(id, key, call_owner or owner)
    if status == 'deferred' then
      if string.find(scopes, 'k') then fly(key, id, deadline) end
      if string.find(scopes, 'o') then fly('owner:' .. call_owner, id, deadline) end
      redis.call('HSET', JOB .. id, 'status', 'queued', 'start', enqueue(id, key, weight, offset))
      if owner ~= '' then redis.call('ZADD', TURNS .. owner, 'XX', 'INCR', 1 / weight, key) end
    end
  end
end

-- Numbers of the day, the week (from Monday) and the month of a time, UTC.
local function windows(seconds)
  local day = math.floor(seconds / 86400)
  local shifted = day + 719468  -- days since 0000-03-01; then Hinnant's civil_from_days
  local era = math.floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = math.floor(
    (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)  -- 0 is March
  return day, math.floor((day + 3) / 7), (year + era * 400) * 12 + month + 2
end

-- Adds what a call has used to what its scope has.
local function book(scope, nano, tokens, day, week, month)
  local v = redis.call('HMGET', SPEND .. scope, 'usd', 'tokens', 'requests', 'd', 'd_usd', 'd_tokens', 'd_requests',
    'w', 'w_usd', 'w_tokens', 'w_requests', 'm', 'm_usd', 'm_tokens', 'm_requests')
  local d, w, m = v[4] == tostring(day), v[8] == tostring(week), v[12] == tostring(month)
  local function sum(current, field, number)
    return string.format('%.0f', (current and v[field] or 0) + number)
  end
  redis.call('HSET', SPEND .. scope,
    'usd', sum(true, 1, nano), 'tokens', sum(true, 2, tokens), 'requests', sum(true, 3, 1),
    'd', day, 'd_usd', sum(d, 5, nano), 'd_tokens', sum(d, 6, tokens), 'd_requests', sum(d, 7, 1),
    'w', week, 'w_usd', sum(w, 9, nano), 'w_tokens', sum(w, 10, tokens), 'w_requests', sum(w, 11, 1),
    'm', month, 'm_usd', sum(m, 13, nano), 'm_tokens', sum(m, 14, tokens), 'm_requests', sum(m, 15, 1))
end

-- How a limit is counted: prefix of the fields of gw:spend, and number of the window.
local function window_of(reset, day, week, month)
  if reset == 'daily' then return 'd_', day end
  if reset == 'weekly' then return 'w_', week end
  if reset == 'monthly' then return 'm_', month end
  return '', 0
end

-- Milliseconds until such a window ends; nil: never.
local function window_end(reset, day, week, month, now_ms)
  local last = day
  if reset == 'weekly' then last = week * 7 + 3 end
  while reset == 'monthly' and select(3, windows((last + 1) * 86400)) == month do last = last + 1 end
  if reset == 'daily' or reset == 'weekly' or reset == 'monthly' then return (last + 1) * 86400000 - now_ms end
end

-- What a limit is now, with what was added to it for a while.
local function limit_now(limit, extra, until_, seconds)
  return limit + ((extra and (not until_ or tonumber(until_) > seconds)) and extra or 0)
end

-- Corrects a scope's tokens per minute, and returns the shares of its limit that its spend has just reached.
local function correct(scope, record, reserved, tokens, now_ms, day, week, month)
  local tpm, limit, unit, reset, extra, until_, shares = unpack(redis.call('HMGET', record, 'tpm', 'limit',
    'limit_unit', 'limit_reset', 'limit_extra', 'limit_extra_until', 'alerts'))
  if tpm and tokens ~= reserved then
    local rpm_tat, tat = unpack(redis.call('HMGET', RATE .. scope, 'rpm', 'tpm'))
    tat = math.max(tat or 0, now_ms) + (tokens - reserved) * MINUTE / tpm
    if tat > now_ms then
      redis.call('HSET', RATE .. scope, 'tpm', tat)
      redis.call('PEXPIRE', RATE .. scope, math.ceil(math.max(tat, rpm_tat or 0) - now_ms) + 1)
    else
      redis.call('HDEL', RATE .. scope, 'tpm')
    end
  end
  if not limit or not shares then return {} end
  unit = unit or 'usd'
  local prefix, window = window_of(reset, day, week, month)
  local spent, alerted = unpack(redis.call('HMGET', SPEND .. scope, prefix .. unit, 'alerted'))
  local before, highest = string.match(alerted or '', '^(%d+) (.+)$')
  highest = before == tostring(window) and tonumber(highest) or 0
  limit = limit_now(limit, extra, until_, now_ms / 1000)
  local reached, last = {}, highest
  for _, share in ipairs(cjson.decode(shares)) do
    if share > highest and tonumber(spent) >= share * limit then
      reached[#reached + 1] = {scope = scope, share = share, unit = unit, limit = limit, spent = tonumber(spent),
        window = reset or cjson.null}
      last = math.max(last, share)
    end
  end
  if last > highest then redis.call('HSET', SPEND .. scope, 'alerted', window .. ' ' .. last) end
  return reached
end

-- Settles a call: releases what it holds, adds what it has used, and appends its record. `fields` of its job are key,
-- owner, scopes, waited_ms, usd and tokens. Without a record the job's stub becomes one, with `ending` as its beginning
-- (a JSON object without its last brace).
local function settle(id, fields, record, ending, nano, tokens, now_ms)
  local key, owner, scopes, waited, usd, reserved = unpack(fields, 1, 6)
  if record == '' then
    local stub = redis.call('HGET', JOB .. id, 'stub')
    if stub then
      record = string.format('%s,"settled_ms":%.0f,"queued_ms":%.0f,"reserved_nano":%s,"reserved_tokens":%s,%s', ending,
        now_ms, waited or 0, usd or 0, reserved or 0, string.sub(stub, 2))
    end
  end
  local alerts = {}
  if key then
    local day, week, month = windows(now_ms / 1000)
    book(key, nano, tokens, day, week, month)
    if owner ~= '' then book('owner:' .. owner, nano, tokens, day, week, month) end
    if scopes then
      for letter in string.gmatch(scopes, '.') do
        local scope = letter == 'k' and key or 'owner:' .. owner
        release(scope, id)
        local more = correct(scope, letter == 'k' and KEY .. key or OWNER .. owner, tonumber(reserved or 0),
          tokens, now_ms, day, week, month)
        for _, alert in ipairs(more) do alerts[#alerts + 1] = alert end
      end
      promote(key, owner)
    end
  end
  if record == '' then return end  -- of the previous release
  local numbers = string.format('{"queued_ms":%.0f,"reserved_usd":%s,"reserved_tokens":%s,"settled_ms":%.0f}',
    waited or 0, usd or 0, reserved or 0, now_ms)
  if #alerts > 0 then
    redis.call('XADD', RECORDS, '*', 'r', record, 'q', numbers, 'a', cjson.encode(alerts))
  else
    redis.call('XADD', RECORDS, '*', 'r', record, 'q', numbers)
  end
end
