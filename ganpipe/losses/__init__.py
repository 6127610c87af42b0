"""Pure functions from what networks put out to what a player minimises."""
