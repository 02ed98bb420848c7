"""Train networks that are sparse and robust in one run, and evaluate them under attack."""
