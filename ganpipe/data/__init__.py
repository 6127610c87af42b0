"""Data: sources of images, shards with a manifest, the decoded cache, and the order in which samples are trained on."""
