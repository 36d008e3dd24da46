"""Submits calls to the queue and brings back their responses. No Flask."""
