#!lua flags=allow-oom
-- Appends a piece to a large outcome. Called again with the same piece, it changes nothing; nor does a piece whose
-- predecessor is missing.
--
-- KEYS  1 partial outcome
-- ARGV  1 where the piece begins  2 piece  3 seconds the partial outcome lives on

if redis.call('STRLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return end
redis.call('APPEND', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
