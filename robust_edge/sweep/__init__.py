"""Many runs of `compress` over a grid of settings, and further commands for each of them."""
