"""Whether a network can be pruned, exported and verified, said before anything is trained or attacked."""
