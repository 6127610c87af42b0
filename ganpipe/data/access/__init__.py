"""How bytes come to this host: mirrors, servers that fail for a moment, gzip within limits, the host's own cache."""
