"""What only a client of a server can do: survive its absence, forks and the end of its process."""
