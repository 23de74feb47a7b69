"""Property-based tests of tools: no deadline, as two noisy cores decide it."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("tools", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tools")
