"""Files that callers upload, and those that batches write: their content and their records."""
