"""What `make run` adds on one machine: Redis, a model, a key, a launcher for the processes."""
