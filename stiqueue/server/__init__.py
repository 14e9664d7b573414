"""The gRPC server: RPCs, streams, probes, logs and metrics."""
