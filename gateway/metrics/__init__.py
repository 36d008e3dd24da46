"""Metrics: what is counted, how processes add to it in Redis, and how it is read."""
