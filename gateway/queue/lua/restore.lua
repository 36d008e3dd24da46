#!lua flags=allow-oom
-- Gives one key or owner back to an emptied Redis. A record that is there stays, and counters are
-- added to once.
--
-- KEYS  1 record  2 counters of its scope (see account.lua)
-- ARGV  1 JSON object: the fields of the record
--       2 JSON object: '' (all time), 'd', 'w' and 'm' (day, week, month) -> texts: number of the
--       window, 1e-9 USD, tokens, requests
-- Returns 1 if something was missing.

local missing = redis.call('EXISTS', KEYS[1]) == 0
if missing then
  for name, value in pairs(cjson.decode(ARGV[1])) do redis.call('HSET', KEYS[1], name, value) end
end
if redis.call('HSETNX', KEYS[2], 'restored', '1') == 1 then
  for window, counts in pairs(cjson.decode(ARGV[2])) do
    local prefix, current = '', counts[1]
    if window ~= '' then
      prefix = window .. '_'
      current = redis.call('HGET', KEYS[2], window) or ''
      if (tonumber(current) or -1) < tonumber(counts[1]) then
        current = counts[1]
        redis.call('HSET', KEYS[2], window, current, prefix .. 'usd', 0, prefix .. 'tokens', 0,
          prefix .. 'requests', 0)
      end
    end
    if current == counts[1] then  -- else its window has ended meanwhile
      for i, name in ipairs({'usd', 'tokens', 'requests'}) do
        redis.call('HINCRBY', KEYS[2], prefix .. name, counts[i + 1])
      end
    end
  end
end
return missing and 1 or 0
