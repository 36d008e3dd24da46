"""OpenAI's Responses API, for any chat model."""
