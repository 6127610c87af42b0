"""Evaluation: how far generated images are from real ones, and under which protocol that was measured."""
