#!lua flags=allow-oom
-- Keeps the breaker of one route: counts failures in a row and opens it, lets one call of all
-- workers through after a cool-down, closes it. A write that an outbox repeats counts twice, which
-- opens a breaker sooner and does no other harm.
--
-- KEYS  1 breakers: a hash, route -> "failures last-failure open-until" (milliseconds, Redis' time)
-- ARGV  1 'failed', 'answered' or 'probe'  2 route  3 failures that open  4 milliseconds after which
--       failures are not in a row  5 milliseconds of the cool-down  6 most routes  7 seconds of the
--       hash since its last change  8 of what was answered: milliseconds since it was asked
-- Returns 1, or 0 where a call must not be made: the breaker is open, or another probes already.

local key, what, route = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most, cooldown = tonumber(ARGV[3]), tonumber(ARGV[5])

local function read(row)
  local failures, last, open = string.match(row or '', '^(%d+) (%d+) (%d+)$')
  -- A clock that was wrong for a while must not keep a route closed for long.
  return tonumber(failures) or 0, math.min(tonumber(last) or now, now),
    math.min(tonumber(open) or 0, now + cooldown)
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

local failures, last, open = read(redis.call('HGET', key, route))
if what == 'answered' then
  -- What was asked before the last failure says nothing of what has been since.
  if last <= now - ARGV[8] then redis.call('HDEL', key, route) end
  return 1
end
if what == 'probe' then
  if failures < most then return 1 end
  if now < open then return 0 end
  -- A probe is a lease: should its worker die, the next may try after another cool-down.
  open = now + cooldown
else
  if failures < most and now - last > tonumber(ARGV[4]) then failures = 0 end
  failures, last = failures + 1, now
  if failures == 1 and redis.call('HLEN', key) >= tonumber(ARGV[6]) then make_room() end
  -- Calls that were on their way when it opened must not put the probe off.
  if failures >= most and now >= open then open = now + cooldown end
end
redis.call('HSET', key, route, string.format('%.0f %.0f %.0f', failures, last, open))
redis.call('EXPIRE', key, ARGV[7])
return 1
