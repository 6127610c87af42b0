"""Plain modules with flat keyword arguments; they know no config, no dataset and no training."""
