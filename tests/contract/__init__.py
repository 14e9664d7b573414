"""The contract of every engine: one suite of rules, run on each of them."""
