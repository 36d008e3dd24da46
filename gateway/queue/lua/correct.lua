#!lua flags=allow-oom
-- Corrects what a key, and its owner, have spent: counters, a record for the ledger and an entry of the audit log, in
-- one step.
--
-- KEYS  1 records  2 audit log  3... counters of the scopes (see account.lua)
-- ARGV  1 record  2 JSON of what the ledger adds to it  3 entry of the audit log  4 most entries of that
--       5 1e-9 USD to add  6 JSON object: 'd', 'w' and 'm' (day, week, month) -> number of the current window

for i = 3, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'usd', ARGV[5])
  for window, number in pairs(cjson.decode(ARGV[6])) do
    local prefix, current = window .. '_', tonumber(redis.call('HGET', KEYS[i], window)) or -1
    if current < number then
      current = number
      redis.call('HSET', KEYS[i], window, number, prefix .. 'usd', 0, prefix .. 'tokens', 0,
        prefix .. 'requests', 0)
    end
    if current == number then redis.call('HINCRBY', KEYS[i], prefix .. 'usd', ARGV[5]) end
  end
end
redis.call('XADD', KEYS[1], '*', 'r', ARGV[1], 'q', ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'entry', ARGV[3])
