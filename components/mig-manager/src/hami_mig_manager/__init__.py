"""hami-mig-manager: owns every change of MIG state on a node."""
