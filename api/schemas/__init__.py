"""What the schemas of several APIs share."""
