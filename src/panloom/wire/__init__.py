"""Octets to values and back, one module for each format."""
