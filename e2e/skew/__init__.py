"""Each component at its previous version beside the others as they are: `make skew`."""
