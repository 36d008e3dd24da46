"""Models that call nobody."""
