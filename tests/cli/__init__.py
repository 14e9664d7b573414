"""The command `stiqueue` as people and scripts use it, on a real server."""
