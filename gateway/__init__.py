"""What the web and worker processes share: the rules, and the state they keep in Redis."""

SERVICE = "inference-service"
VERSION = "1.0.0"
