"""One decoder a format: bytes or text in, values out."""
