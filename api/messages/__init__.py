"""Anthropic's Messages API, for any chat model."""
