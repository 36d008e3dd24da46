"""HTTP itself: authentication, bodies, headers, errors, connections."""
