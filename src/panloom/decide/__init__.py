"""The pure brain: what to answer, what to place where, what to do next. No clock, no socket, no randomness of its own."""
