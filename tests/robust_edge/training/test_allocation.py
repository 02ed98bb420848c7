import subprocess
import sys

import pytest

CODE = """
import resource
import torch
from robust_edge.training.allocation import keep_freed_memory
torch.set_num_threads(1)
print(keep_freed_memory() if {kept} else True)
for _ in range(20):  # the C library needs some blocks until all fit into the gaps of others
    torch.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_freed_block_is_used_again_without_the_kernel():
    """64 MiB ten times over: each costs page faults, unless the block is kept."""
    faults = []
    for kept in (True, False):
        code = [sys.executable, "-c", CODE.format(kept=kept)]
        done, count = subprocess.run(code, capture_output=True, text=True, check=True).stdout.split()
        if done == "False":
            pytest.skip("another C library than glibc")
        faults.append(int(count))
    assert faults[0] < 100
    assert faults[1] > 1000
