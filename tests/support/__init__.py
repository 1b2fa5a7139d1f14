"""What several tests share: waiting for facts, namespaces, foreign programs."""
