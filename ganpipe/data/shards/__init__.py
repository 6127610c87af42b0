"""A dataset on disk: tar files, the manifest, and where the shards are."""
