"""Measured work on real parts; each package here is run by itself and prints tables."""
