"""A run as one page: what is to be read where (gather), and how it is drawn (page). See `ganpipe report`."""
