"""One folder for each artifact format."""
