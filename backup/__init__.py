"""Backup: consistent sets of MLflow's database and of what it refers to, which owe nothing to the replica."""
