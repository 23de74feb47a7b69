"""Property-based tests of the plan: no deadline, as two noisy cores decide it."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("plan", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plan")
