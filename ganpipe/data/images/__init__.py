"""From a file's bytes to one square 8-bit image: what sources, ingest, `translate` and the served page decode with."""
