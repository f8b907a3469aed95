"""The sample shop: three services that share contracts and nothing else."""
