"""From measured accuracies to a verdict."""
