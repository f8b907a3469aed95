"""What headrace costs, counted and timed."""
