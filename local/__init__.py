"""What `make run` adds on one machine: Redis, a model, a key, and a launcher for the processes."""
