"""One runtime per artifact format; each imports its backend only when it opens."""
