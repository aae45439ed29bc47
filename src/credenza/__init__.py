"""Credenza: a self-hosted JSON document service. The version is written here and nowhere else."""

__version__ = "0.1.0"
