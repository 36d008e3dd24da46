#!lua flags=allow-oom
-- Writes records of calls into the ledger that Redis keeps where there is no database, and adds
-- them to the sums of their buckets. A record that is there already changes nothing.
--
-- KEYS  1 records by time: a sorted set of ids, scored by when they were settled (milliseconds)
-- ARGV  1 beginning of the names of records  2 beginning of the names of sums  3 seconds a record is
--       kept  4 most records  5 JSON: lists [width of a bucket in seconds (0: all time), seconds its
--       sums are kept (0: for ever)]
--       then for each record: its id, when it was settled (milliseconds), its JSON, what its sums are
--       grouped by in buckets and for all time, a JSON object of what it adds
-- Returns the number of new records.

local widths, sums, new = cjson.decode(ARGV[5]), {}, 0

for i = 6, #ARGV, 6 do
  local id, settled = ARGV[i], tonumber(ARGV[i + 1])
  if redis.call('SET', ARGV[1] .. id, ARGV[i + 2], 'NX', 'EX', ARGV[3]) then
    new = new + 1
    redis.call('ZADD', KEYS[1], settled, id)
    local seconds = math.floor(settled / 1000)
    local added = cjson.decode(ARGV[i + 5])
    for _, width in ipairs(widths) do
      local start = width[1] > 0 and seconds - seconds % width[1] or 0
      local bucket = string.format('%s%d:%d', ARGV[2], width[1], start)
      local group = width[1] > 0 and ARGV[i + 3] or ARGV[i + 4]
      local fields = sums[bucket] or {keep = width[2]}
      sums[bucket] = fields
      for name, count in pairs(added) do
        local field = name .. ' ' .. group
        fields[field] = (fields[field] or 0) + count
      end
    end
  end
end

for bucket, fields in pairs(sums) do
  local keep = fields.keep
  fields.keep = nil
  for field, count in pairs(fields) do
    redis.call('HINCRBY', bucket, field, string.format('%.0f', count))
  end
  if keep > 0 then redis.call('EXPIRE', bucket, keep) end
end

-- Records that have expired, and the oldest of too many.
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', (now - ARGV[3]) * 1000)
local over = redis.call('ZCARD', KEYS[1]) - ARGV[4]
if over > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[1], over)
  for i = 1, #oldest, 2 do redis.call('UNLINK', ARGV[1] .. oldest[i]) end
end
return new
