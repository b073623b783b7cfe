"""Tests and demonstrations on a real cluster with simulated cards."""
