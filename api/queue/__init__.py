"""The queue, as operators look at it and steer it."""
