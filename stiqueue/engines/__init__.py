"""Where messages live: in memory, in a data file, or in a cluster."""
