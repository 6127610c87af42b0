"""ganpipe: train, compare, release and reproduce generative adversarial networks as one pipeline."""

__version__ = "0.1.0"
