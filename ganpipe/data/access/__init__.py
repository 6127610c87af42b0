"""How bytes reach this host: downloads from mirrors, retries, gzip with a size limit, the host's own cache."""
