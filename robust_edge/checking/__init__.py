"""Checks whether a network can be pruned, exported and verified, before anything is trained or attacked."""
