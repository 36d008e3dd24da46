#!lua flags=allow-oom
-- Puts events into the inbox of one web process. Not idempotent: each event carries a number, and
-- the reader drops those it has seen. Only the reader trims: what it has not read stays.
--
-- KEYS  1 inbox
-- ARGV  1 entries of a full inbox  2 bytes of a full inbox  3 seconds the inbox lives on  4... events
-- Returns how full the inbox is, in percent.

local bytes = 0
for i = 4, #ARGV do
  bytes = bytes + #ARGV[i]
  redis.call('XADD', KEYS[1], '*', 'e', ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
local length = redis.call('XLEN', KEYS[1])
local percent = length * 100 / ARGV[1]
if length > 1000 or bytes > 64000 then  -- else it is small
  local used = redis.pcall('MEMORY', 'USAGE', KEYS[1])  -- by a sample; an ACL may refuse it
  if type(used) == 'number' then percent = math.max(percent, used * 100 / ARGV[2]) end
end
return math.floor(percent)
