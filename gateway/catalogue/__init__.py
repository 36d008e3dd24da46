"""The catalogue of models and providers."""
