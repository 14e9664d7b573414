"""The generated stubs of the protocol `stiqueue.v1`. Made by scripts/proto; never edited."""
