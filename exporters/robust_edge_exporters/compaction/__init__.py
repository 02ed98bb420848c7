"""Takes channels that compute nothing out of a network."""
