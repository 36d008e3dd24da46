#!lua flags=allow-oom
-- Lets the next request with an Idempotency-Key make a call of its own, unless it stands for another by now.
--
-- KEYS  1 Idempotency-Key
-- ARGV  1 call id and fingerprint of the request

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
