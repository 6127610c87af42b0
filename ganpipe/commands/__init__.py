"""What the `ganpipe` command does beside the stages: one thin main each."""
