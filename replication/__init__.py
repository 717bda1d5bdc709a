"""Replication: keep copies of a host's databases elsewhere, and bring them back on an empty host."""
