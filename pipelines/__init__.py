"""Pipeline graphs and nothing else."""
