"""The pure brain: what to answer, what to place where, what to do next; no clock, socket or randomness of its own."""
