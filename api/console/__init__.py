"""The console at /console: pages for people, over the functions that the HTTP APIs use."""
