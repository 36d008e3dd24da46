#!lua flags=allow-oom
-- Keeps the breaker of one route: counts consecutive failures and opens it, lets one call of all
-- workers through after a cool-down, closes it. A write that an outbox repeats counts twice, which
-- opens a breaker sooner and does no other harm.
--
-- KEYS  1 breakers: a hash, route -> "failures last-failure open-until [key=failures ...]"
--         (milliseconds, Redis' time)
-- ARGV  1 'failed', 'answered' or 'probe'  2 route  3 failures that open  4 milliseconds after which
--       failures are not consecutive  5 milliseconds of the cool-down  6 most routes  7 seconds of
--       the hash since its last change  8 of what was answered: milliseconds since the call was made
--       9 public id of the call's API key, '' if unknown  10 most keys of a route
-- Returns 1, or 0 where a call must not be made: the breaker is open, or another probes already.

local key, what, route, caller = KEYS[1], ARGV[1], ARGV[2], ARGV[9]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most, cooldown = tonumber(ARGV[3]), tonumber(ARGV[5])

local function read(row)
  local failures, last, open, rest = string.match(row or '', '^(%d+) (%d+) (%d+)(.*)$')
  local by_key, count = {}, 0
  for name, number in string.gmatch(rest or '', ' (%w+)=(%d+)') do
    by_key[name], count = tonumber(number), count + 1
  end
  -- A clock that was wrong for a while must not keep a route closed for long.
  return tonumber(failures) or 0, math.min(tonumber(last) or now, now),
    math.min(tonumber(open) or 0, now + cooldown), by_key, count
end

-- The oldest makes room, rather one that is not open: callers make up names of models.
local function make_room()
  local rows = redis.call('HGETALL', key)
  local oldest, least
  for at = 1, #rows, 2 do
    local failures, last = read(rows[at + 1])
    local rank = failures >= most and last or last - 1e15
    if not least or rank < least then oldest, least = rows[at], rank end
  end
  redis.call('HDEL', key, oldest)
end

local failures, last, open, by_key, count = read(redis.call('HGET', key, route))

-- Whether it is open for the caller: another key's failing calls alone do not open it.
local function opened()
  local other = 0
  for name, number in pairs(by_key) do
    if name ~= caller and number > other then other = number end
  end
  return failures - (caller ~= '' and other or 0) >= most
end

if what == 'answered' then
  -- A call made before the last failure says nothing of what has been since.
  if last <= now - ARGV[8] then redis.call('HDEL', key, route) end
  return 1
end
if what == 'probe' then
  if not opened() then return 1 end
  if now < open then return 0 end
  -- A probe is a lease: should its worker die, the next may try after another cool-down.
  open = now + cooldown
else
  if failures < most and now - last > tonumber(ARGV[4]) then failures, by_key, count = 0, {}, 0 end
  failures, last = failures + 1, now
  if caller ~= '' and (by_key[caller] or count < tonumber(ARGV[10])) then
    by_key[caller] = (by_key[caller] or 0) + 1
  end
  if failures == 1 and redis.call('HLEN', key) >= tonumber(ARGV[6]) then make_room() end
  -- Calls that were on their way when it opened must not put the probe off.
  if opened() and now >= open then open = now + cooldown end
end
local fields = {string.format('%.0f %.0f %.0f', failures, last, open)}
for name, number in pairs(by_key) do fields[#fields + 1] = name .. '=' .. number end
redis.call('HSET', key, route, table.concat(fields, ' '))
redis.call('EXPIRE', key, ARGV[7])
return 1
