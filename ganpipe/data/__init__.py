"""Data: sources of images, shards with a manifest, the decoded cache, and who gets which sample when."""
