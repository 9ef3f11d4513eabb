"""Inference: checkpoints in, sample paths out. Knows torch and NumPy, nothing of the web."""

import os

# Read by OpenMP when torch is first imported, which is below this package. Threads that spin for
# long while they wait for each other make a forecast many times slower as soon as anything else
# wants their cores; threads that never spin make it half as fast on a machine of its own.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
