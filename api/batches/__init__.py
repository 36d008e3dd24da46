"""Batches: OpenAI's API and Anthropic's, and the runner of both."""
