"""Experiments from data to a folder of results."""
