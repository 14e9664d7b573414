"""What `SQClient` and `LocalSQClient` have in common: the same tests on a server, on a data file and in one process."""
