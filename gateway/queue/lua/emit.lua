#!lua flags=allow-oom
-- Puts events into the inbox of one web process. Not idempotent: each event carries a number, and
-- the reader drops those it has seen.
--
-- KEYS  1 inbox
-- ARGV  1 most events kept  2 seconds the inbox lives on  3... events

for i = 3, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return #ARGV - 2
