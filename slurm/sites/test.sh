#!/usr/bin/env bash
# test.sh - the throw-away cluster of tests/slurm: several nodes on one machine, this very tree, possibly as root.
export PYTHONPATH=$HAMSCOPE_HOME/src:$HAMSCOPE_HOME/hpc
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Both nodes are this machine.  127.0.0.1 itself Ray would replace by the address of the network.
export HAMSCOPE_RAY_IP=127.0.0.2
