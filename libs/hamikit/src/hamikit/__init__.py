"""What every HAMi component shares."""
