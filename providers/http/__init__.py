"""HTTP to providers."""
