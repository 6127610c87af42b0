"""From a source's items to shards with a manifest. Equal inputs give equal bytes, and no image is decoded twice."""
