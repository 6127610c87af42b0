"""From shards to training: the decoded cache of a host, and which worker gets which sample when."""
