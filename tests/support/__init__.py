"""What several tests need: a clock to set by hand, services that may be missing, errors as they travel."""
