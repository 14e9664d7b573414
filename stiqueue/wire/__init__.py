"""What client and server both speak: status codes, metadata, host names, credentials. Nothing of an engine."""
