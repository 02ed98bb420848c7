"""The CUDA runtime library, for every format that runs on NVIDIA GPUs."""
