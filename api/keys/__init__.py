"""API keys and their owners: what a caller may know of its own, and what operators manage."""
