"""A dataset as it lies on a disk: tar members, the manifest, and where the shards are."""
