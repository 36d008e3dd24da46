"""OpenAI's API, and every provider that is compatible with it."""
