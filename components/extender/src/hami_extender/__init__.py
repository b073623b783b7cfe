"""Placement: which nodes could hold a pod, how good each is, and one write that binds it."""
