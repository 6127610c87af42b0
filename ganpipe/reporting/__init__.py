"""A run as one HTML page: `gather` reads its contents, `page` renders them. See `ganpipe report`."""
