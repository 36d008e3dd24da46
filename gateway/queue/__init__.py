"""The queue in Redis: key names, message formats, scripts, clients."""
