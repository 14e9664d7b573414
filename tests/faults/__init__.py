"""The fault tests: real processes, real faults, recorded histories and a checker that judges them."""
