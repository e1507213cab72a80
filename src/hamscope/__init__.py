"""Hamscope reads the Hamiltonian off an image: which model drew these domains, how surely, how near criticality.

The library: importable without MPI, Ray or SLURM.  The distributed programs round it are `hamscope_hpc`.
"""

__version__ = "0.1.0"
