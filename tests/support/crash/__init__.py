"""What a kill or a power cut may leave of what Panloom keeps, and whether it opens again."""
