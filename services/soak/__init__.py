"""The sample shop while its processes are killed: what is left of "exactly once" after that."""
