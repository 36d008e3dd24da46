#!lua flags=allow-oom
-- Keeps the breaker of one route: counts failures in a row and opens it, lets one call of all
-- workers through after a cool-down, closes it. A write that an outbox repeats counts twice, which
-- opens a breaker sooner and does no other harm.
--
-- KEYS  1 breakers: a hash, route -> "failures last-failure open-until" (milliseconds, Redis' time)
-- ARGV  1 'failed', 'answered' or 'probe'  2 route  3 failures that open  4 milliseconds after which
--       failures are not in a row  5 milliseconds of the cool-down  6 most routes  7 seconds of the
--       hash since its last change
-- Returns 1, or 0 where a call must not be made: the breaker is open, or another probes already.

local key, what, route = KEYS[1], ARGV[1], ARGV[2]

-- Forgets the route that failed longest ago, of those that calls are not kept from; whether it did.
-- Names of models are made up by callers: they must not keep others from being counted.
local function make_room(now)
  local rows = redis.call('HGETALL', key)
  local oldest, found = math.huge, nil
  for i = 1, #rows, 2 do
    local last, open = string.match(rows[i + 1], '^%d+ (%d+) (%d+)$')
    last, open = tonumber(last) or 0, tonumber(open) or 0
    if now >= open and last < oldest then oldest, found = last, rows[i] end
  end
  return found and redis.call('HDEL', key, found) == 1
end

if what == 'answered' then
  redis.call('HDEL', key, route)
  return 1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local failures, last, open = string.match(redis.call('HGET', key, route) or '', '^(%d+) (%d+) (%d+)$')
failures, last, open = tonumber(failures) or 0, tonumber(last) or now, tonumber(open) or 0
local most = tonumber(ARGV[3])

if what == 'probe' then
  if failures < most then return 1 end
  if now < open then return 0 end
  -- A probe is a lease: should its worker die, the next may try after another cool-down.
  open = now + ARGV[5]
else
  if failures < most and now - last > tonumber(ARGV[4]) then failures = 0 end
  failures, last = failures + 1, now
  local full = redis.call('HLEN', key) >= tonumber(ARGV[6])
  if full and redis.call('HEXISTS', key, route) == 0 and not make_room(now) then return 1 end
  -- Calls that were on their way when it opened must not put the probe off.
  if failures >= most and now >= open then open = now + ARGV[5] end
end
redis.call('HSET', key, route, string.format('%.0f %.0f %.0f', failures, last, open))
redis.call('EXPIRE', key, ARGV[7])
return 1
