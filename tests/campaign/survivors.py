"""Why nothing is seen when these places are taken out: by module and what stands there."""

REASONS = {}
