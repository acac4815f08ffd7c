"""Read image files: bytes, facts, pixels, or the reason why not."""
