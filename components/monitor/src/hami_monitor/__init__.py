"""Observation: what each container was granted and what it uses, as metrics."""
