"""Train networks that are sparse and robust in one run, and judge them under attack."""
