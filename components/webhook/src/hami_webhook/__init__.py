"""Admission: fills in what a GPU pod left out and refuses what cannot be right."""
