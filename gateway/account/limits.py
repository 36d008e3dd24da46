"""Limits of API keys and of their owners."""

from __future__ import annotations

from gateway.queue.protocol import AdmissionRequest

__all__ = ["AdmissionRequest"]
