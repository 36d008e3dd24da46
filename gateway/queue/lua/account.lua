-- What submit, claim, finish, cancel, promote, move and retry share: the order of calls, what is in flight, settlement.
-- scripts.py puts it before them and replaces the names that begin with a dollar by those of keys.py.
--
-- A scope is a key (its public id) or an owner ('owner:' and its id). Money is in integers of 1e-9 USD; sums
-- are exact up to 2^63, decisions up to 2^53 (9,000,000 USD). Each function is safe for a call that has ended or that is not known.

local BELL, CALL, DEFERRED, FAIR, FLIGHT, HELD, JOB = $BELL, $CALL, $DEFERRED, $FAIR, $FLIGHT, $HELD, $JOB
local KEY, QUEUED_BYTES, RQ_CANCELED = $KEY, $QUEUED_BYTES, $RQ_CANCELED
local OWNER, PARKED, PARKED_CALLS, RATE, RQ_QUEUE, SPEND = $OWNER, $PARKED, $PARKED_CALLS, $RATE, $RQ_QUEUE, $SPEND
local PAUSED, PAUSED_CALLS, PAUSED_NAMES, SCHEDULED = $PAUSED, $PAUSED_CALLS, $PAUSED_NAMES, $SCHEDULED
local LOG, SCHEDULED_CALLS = $LOG, $SCHEDULED_CALLS
local MEMORY, RECORDS, SHARED_SECONDS, TURNS, WAITING = $MEMORY, $RECORDS, $SHARED_SECONDS, $TURNS, $WAITING
local MINUTE = 60000

-- Puts a call into the queue, for which its key has `weight`, behind `offset` calls of others, and rings the bell.
-- Start-time fair queuing: a call starts at the queue's virtual time, or when the call of its key before it ends.
-- Returns its virtual start.
local function enqueue(id, public_id, weight, offset)
  local V, F, number = unpack(redis.call('HMGET', FAIR, 'V', public_id, 'number'))
  local start = math.max(V or 0, F or 0)
  number = (number or 0) + 1
  redis.call('HSET', FAIR, public_id, start + 1 / weight, 'number', string.format('%d', number))
  if number == 1 then redis.call('EXPIRE', FAIR, SHARED_SECONDS) end
  -- Of calls with the same start the oldest goes first.
  redis.call('ZADD', WAITING, start + offset + number * 1e-9, id)
  redis.call('RPUSH', RQ_QUEUE, id)
  -- A bell nobody answers must not grow: this many tokens wake every worker there is.
  if redis.call('LLEN', BELL) < 64 and redis.call('RPUSH', BELL, 1) == 1 then
    redis.call('EXPIRE', BELL, SHARED_SECONDS)
  end
  return start
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

-- Adds what a call has used to what its scope has. Every call pays for this one.
local function book(scope, nano, tokens, seconds)
  local name = SPEND .. scope
  local day = string.format('%d', math.floor(seconds / 86400))
  if redis.call('HGET', name, 'd') ~= day then
    local week, month = unpack(redis.call('HMGET', name, 'w', 'm'))
    local _, this_week, this_month = windows(seconds)
    redis.call('HSET', name, 'd', day, 'd_usd', 0, 'd_tokens', 0, 'd_requests', 0)
    if tonumber(week) ~= this_week then
      redis.call('HSET', name, 'w', this_week, 'w_usd', 0, 'w_tokens', 0, 'w_requests', 0)
    end
    if tonumber(month) ~= this_month then
      redis.call('HSET', name, 'm', this_month, 'm_usd', 0, 'm_tokens', 0, 'm_requests', 0)
    end
  end
  if nano ~= '0' then
    redis.call('HINCRBY', name, 'usd', nano)
    redis.call('HINCRBY', name, 'd_usd', nano)
    redis.call('HINCRBY', name, 'w_usd', nano)
    redis.call('HINCRBY', name, 'm_usd', nano)
  end
  if tokens ~= '0' then
    redis.call('HINCRBY', name, 'tokens', tokens)
    redis.call('HINCRBY', name, 'd_tokens', tokens)
    redis.call('HINCRBY', name, 'w_tokens', tokens)
    redis.call('HINCRBY', name, 'm_tokens', tokens)
  end
  redis.call('HINCRBY', name, 'requests', '1')
  redis.call('HINCRBY', name, 'd_requests', '1')
  redis.call('HINCRBY', name, 'w_requests', '1')
  redis.call('HINCRBY', name, 'm_requests', '1')
end

-- Functions for calls of keys and owners with limits. They are made only for those: each costs a call as much as a
-- command of Redis.
local function limits()
  local L = {}

  function L.fly(scope, id, expiry_ms)
    redis.call('ZADD', FLIGHT .. scope, expiry_ms, id)
    redis.call('EXPIRE', FLIGHT .. scope, SHARED_SECONDS)
  end

  -- Gives back what a call holds of a scope.
  function L.release(scope, id)
    redis.call('ZREM', FLIGHT .. scope, id)
    local held = redis.call('HGET', HELD .. scope, id)
    if held then
      local usd, tokens = string.match(held, '^(%d+) (%d+)$')
      redis.call('HDEL', HELD .. scope, id)
      redis.call('HINCRBY', HELD .. scope, 'usd', string.format('%.0f', 0 - usd))
      redis.call('HINCRBY', HELD .. scope, 'tokens', string.format('%.0f', 0 - tokens))
      if redis.call('HLEN', HELD .. scope) == 2 then redis.call('DEL', HELD .. scope) end  -- the totals alone
    end
  end

  -- Releases the calls of a scope that nobody settled in time.
  function L.expire(scope, now_ms)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', FLIGHT .. scope, '-inf', now_ms, 'LIMIT', 0, 1000)) do
      L.release(scope, id)
    end
  end

  -- When a call that waits outside the queue ends, in ms: past its deadline, so that the process that waits for it
  -- ends it first. For a logged call no process does.
  function L.expiry(web, deadline_ms, grace_ms)
    return string.sub(web or '', 1, 4) == 'log:' and deadline_ms or deadline_ms + grace_ms
  end

  function L.park(id, public_id, owner, expiry_ms)
    local order = (redis.call('ZRANGE', PARKED_CALLS .. public_id, -1, -1, 'WITHSCORES')[2] or 0) + 1
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

  -- Sets a call aside until `due_ms`.
  function L.schedule(id, public_id, owner, due_ms, expiry_ms)
    redis.call('HSET', JOB .. id, 'status', 'deferred', 'aside', 'scheduled')
    redis.call('ZADD', DEFERRED, math.ceil(expiry_ms / 1000), id)
    redis.call('ZADD', SCHEDULED, due_ms, id)
    redis.call('ZADD', SCHEDULED_CALLS .. public_id, due_ms, id)
    if owner ~= '' then redis.call('ZADD', SCHEDULED_CALLS .. 'owner:' .. owner, due_ms, id) end
  end

  -- Whether a key, which was valid when its call was submitted, no longer is.
  function L.refused(public_id, owner, seconds)
    local hmac, revoked, disabled, expires =
      unpack(redis.call('HMGET', KEY .. public_id, 'hmac', 'revoked', 'disabled', 'expires'))
    return not hmac or revoked or disabled or expires and tonumber(expires) <= tonumber(seconds)
      or owner ~= '' and redis.call('HEXISTS', OWNER .. owner, 'disabled') == 1
  end

  -- The pause that holds a call: of its key, of its model, or of that model's provider; nil: none.
  function L.pause_of(public_id, stub)
    local call = stub and cjson.decode(stub) or {}
    local names = {'key:' .. public_id, 'model:' .. (call.model or ''), 'provider:' .. (call.provider or '')}
    for _, name in ipairs(names) do
      if redis.call('HEXISTS', PAUSED, name) == 1 then return name end
    end
  end

  -- Sets a call aside while `pause` lasts. It is not in flight meanwhile, so its key's other calls go on; what it has
  -- reserved of budgets stays reserved.
  function L.hold(id, public_id, owner, scopes, pause, expiry_ms)
    redis.call('HSET', JOB .. id, 'status', 'deferred', 'aside', pause)
    redis.call('ZADD', DEFERRED, math.ceil(expiry_ms / 1000), id)
    local order = (redis.call('ZRANGE', PAUSED_CALLS .. pause, -1, -1, 'WITHSCORES')[2] or 0) + 1
    redis.call('ZADD', PAUSED_CALLS .. pause, order, id)
    redis.call('SADD', PAUSED_NAMES, pause)
    if not scopes then return end
    if string.find(scopes, 'k') then redis.call('ZREM', FLIGHT .. public_id, id) end
    if string.find(scopes, 'o') then redis.call('ZREM', FLIGHT .. 'owner:' .. owner, id) end
    L.promote(public_id, owner)
  end

  -- Takes a call out of what it waits in outside the queue: parked, scheduled or paused.
  function L.unpark(id, public_id, owner)
    redis.call('ZREM', DEFERRED, id)
    local aside = redis.call('HGET', JOB .. id, 'aside')
    if aside then redis.call('HDEL', JOB .. id, 'aside') end
    if aside == 'scheduled' then
      redis.call('ZREM', SCHEDULED, id)
      redis.call('ZREM', SCHEDULED_CALLS .. public_id, id)
      if owner ~= '' then redis.call('ZREM', SCHEDULED_CALLS .. 'owner:' .. owner, id) end
      return
    elseif aside then
      redis.call('ZREM', PAUSED_CALLS .. aside, id)
      if redis.call('EXISTS', PAUSED_CALLS .. aside) == 0 then redis.call('SREM', PAUSED_NAMES, aside) end
      return
    end
    redis.call('ZREM', PARKED_CALLS .. public_id, id)
    local empty = redis.call('EXISTS', PARKED_CALLS .. public_id) == 0
    if empty then redis.call('HDEL', PARKED, public_id) end
    if owner == '' then return end
    redis.call('ZREM', PARKED_CALLS .. 'owner:' .. owner, id)
    if empty then redis.call('ZREM', TURNS .. owner, public_id) end
  end

  -- Queues the parked calls of a key, or of all keys of its owner, for which there is room in flight now.
  -- Keys of an owner take turns by their weights.
  function L.promote(public_id, owner)
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
      L.unpark(id, key, call_owner or owner)
      if status == 'deferred' then
        if string.find(scopes, 'k') then L.fly(key, id, deadline) end
        if string.find(scopes, 'o') then L.fly('owner:' .. call_owner, id, deadline) end
        redis.call('HSET', JOB .. id, 'status', 'queued', 'start', enqueue(id, key, weight, offset))
        if owner ~= '' then redis.call('ZADD', TURNS .. owner, 'XX', 'INCR', 1 / weight, key) end
      end
    end
  end

  -- How a limit is counted: prefix of the fields of gw:spend, and number of the window.
  function L.window_of(reset, day, week, month)
    if reset == 'daily' then return 'd_', day end
    if reset == 'weekly' then return 'w_', week end
    if reset == 'monthly' then return 'm_', month end
    return '', 0
  end

  -- Milliseconds until such a window ends; nil: never.
  function L.window_end(reset, day, week, month, now_ms)
    local last = day
    if reset == 'weekly' then last = week * 7 + 3 end
    while reset == 'monthly' and select(3, windows((last + 1) * 86400)) == month do last = last + 1 end
    if reset == 'daily' or reset == 'weekly' or reset == 'monthly' then return (last + 1) * 86400000 - now_ms end
  end

  -- What a limit is now, with what was added to it for a while.
  function L.limit_now(limit, extra, until_, seconds)
    return limit + ((extra and (not until_ or tonumber(until_) > seconds)) and extra or 0)
  end

  -- Corrects a scope's tokens per minute, and returns the shares of its limit that its spend has just reached.
  function L.correct(scope, record, reserved, tokens, now_ms, day, week, month)
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
    local prefix, window = L.window_of(reset, day, week, month)
    local spent, alerted = unpack(redis.call('HMGET', SPEND .. scope, prefix .. unit, 'alerted'))
    local before, highest = string.match(alerted or '', '^(%d+) (.+)$')
    highest = before == tostring(window) and tonumber(highest) or 0
    limit, spent = L.limit_now(limit, extra, until_, now_ms / 1000), tonumber(spent or 0)
    local reached, last = {}, highest
    for _, share in ipairs(cjson.decode(shares)) do
      if share > highest and spent >= share * limit then
        reached[#reached + 1] = {scope = scope, share = share, unit = unit, limit = limit, spent = spent,
          window = reset or cjson.null}
        last = math.max(last, share)
      end
    end
    if last > highest then redis.call('HSET', SPEND .. scope, 'alerted', window .. ' ' .. last) end
    return reached
  end
  return L
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
    book(key, nano, tokens, now_ms / 1000)
    if owner ~= '' then book('owner:' .. owner, nano, tokens, now_ms / 1000) end
    if scopes then
      local L = limits()
      local day, week, month = windows(now_ms / 1000)
      for letter in string.gmatch(scopes, '.') do
        local scope = letter == 'k' and key or 'owner:' .. owner
        L.release(scope, id)
        local more = L.correct(scope, letter == 'k' and KEY .. key or OWNER .. owner, tonumber(reserved or 0),
          tonumber(tokens), now_ms, day, week, month)
        for _, alert in ipairs(more) do alerts[#alerts + 1] = alert end
      end
      L.promote(key, owner)
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
