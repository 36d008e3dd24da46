"""The clients and agents that people use, each as installed, against a running service."""
