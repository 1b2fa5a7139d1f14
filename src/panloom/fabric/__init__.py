"""The kernel's network: what is there (observe), what should be (values), how to get there (apply)."""
