"""Attacks that need only numpy."""
