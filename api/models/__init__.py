"""The list of models, with their limits and prices."""
