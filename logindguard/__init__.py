"""Keeps dying memory cgroups of ended sessions and cron jobs from piling up."""

__version__ = "0.1.0"
