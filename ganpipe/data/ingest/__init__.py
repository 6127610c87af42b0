"""From a source's items to shards with a manifest: the same bytes every time, nothing decoded a second time."""
