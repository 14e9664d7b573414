"""How a client calls a server over gRPC."""
