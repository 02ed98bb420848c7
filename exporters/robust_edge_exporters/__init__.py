"""Export of checkpoints: artifacts for targets, bundles, and checks that outputs match those of the checkpoint."""
