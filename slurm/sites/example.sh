#!/usr/bin/env bash
# example.sh - copy it to slurm/sites/NAME.sh, keep what your cluster needs, and export HAMSCOPE_SITE=NAME.
# It is sourced where jobs are submitted and again in every job.  sbatch reads the SBATCH_ variables itself.

# module load openmpi/4.1 python/3.11

# export SBATCH_ACCOUNT=my-project
# export SBATCH_PARTITION=standard

# Where hamscope is installed: a virtual environment, or a container that has it.  Not both.
# export HAMSCOPE_VENV=$HOME/hamscope/.venv
# export HAMSCOPE_CONTAINER=$HOME/hamscope.sif
# export HAMSCOPE_BIND="/scratch /data"       # more folders that the container has to see

# export HAMSCOPE_MPI_TYPE=pmix               # `srun --mpi=list` names those that your SLURM has
# export HAMSCOPE_GPUS_PER_NODE=4             # for training and classification
# export HAMSCOPE_RAY_IP=10.1.2.3             # the head's address, where its host name leads to the wrong network
:
