"""The floors: what headrace asks of AWS, asked by a loop that can do nothing else."""
