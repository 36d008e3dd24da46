#!lua flags=allow-oom
-- Adds to counters, at most once for each value of a mark.
--
-- KEYS  1 mark  2... hashes of counters
-- ARGV  1 new value of the mark  2 value that it must have ('*': any; '': there is none)
--       3 seconds that the mark lives (0: for ever)
--       then for each hash: seconds that it lives (0: for ever), number of pairs, pairs of field and amount
-- Returns 1 if the amounts are counted, now or before; 0: the mark has another value.

local mark = redis.call('GET', KEYS[1]) or ''
if mark == ARGV[1] then return 1 end
if ARGV[2] ~= '*' and mark ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
if ARGV[3] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
local at = 4
for i = 2, #KEYS do
  local last = at + 2 * ARGV[at + 1]
  -- pcall: a number that is too large must not hold up the others.
  for j = at + 2, last, 2 do redis.pcall('HINCRBY', KEYS[i], ARGV[j], ARGV[j + 1]) end
  if ARGV[at] ~= '0' and last > at + 1 then redis.call('EXPIRE', KEYS[i], ARGV[at]) end
  at = last + 2
end
return 1
