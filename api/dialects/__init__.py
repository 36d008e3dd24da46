"""Other APIs than chat completions, in chat's words and back: pure translation, no Flask."""
