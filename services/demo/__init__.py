"""The sample shop at work: real orders over real APIs on an emulator, and a checked result."""
