"""Panloom: diskless machines become servers whose whole identity is a record on the control nodes."""

__version__ = "0.1.0"
