"""The verify modes that need torch."""
