"""What the request schemas of several APIs share."""
