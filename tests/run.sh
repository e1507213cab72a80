#!/usr/bin/env bash
# run.sh - every test: first those of one process, then those that run on 2, 3 and 4 MPI ranks.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/${VENV:-.venv}/bin
export PATH=$bin:$PATH
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
logs=$(mktemp -d "${TMPDIR:-/tmp}/hamscope-tests.XXXXXX")
trap 'rm -rf "$logs"' EXIT

if command -v mpiexec >/dev/null; then
  for ranks in 2 3 4; do
    echo "== tests/mpi on $ranks ranks"
    # Every rank runs the same tests; rank 0 is shown, the others where something failed.
    if ! OMP_NUM_THREADS=1 timeout --kill-after=10 600 mpiexec -n "$ranks" --oversubscribe bash -c '
      exec "$0" -m pytest --with-mpi -m mpi -q -p no:cacheprovider --timeout 120 tests/mpi >"$1/$OMPI_COMM_WORLD_RANK" 2>&1
    ' "$bin/python" "$logs"; then
      for log in "$logs"/*; do echo "-- rank ${log##*/}"; tail -n 60 "$log"; done
      exit 1
    fi
    tail -n 1 "$logs/0"
  done
elif [ -n "${CI:-}" ]; then
  echo "no mpiexec: in CI every engine has to be there" >&2; exit 1
else
  echo "== tests/mpi skipped: no mpiexec; apt-get install openmpi-bin libopenmpi-dev" >&2
fi

echo "== all other tests"
"$bin/python" -m pytest -q -m "not mpi" --ignore=tests/slurm tests

echo "== tests/slurm, three at a time, each on a SLURM of its own: they wait more than they compute"
begin=$SECONDS running=() failed=''
cd tests/slurm
for files in test_pipeline.py test_simulate.py ". --ignore=test_pipeline.py --ignore=test_simulate.py"; do
  read -ra files <<<"$files"
  "$bin/python" -m pytest -q -p no:cacheprovider --durations=3 "${files[@]}" >"$logs/slurm.${#running[@]}" 2>&1 &
  running+=($!)
done
for k in "${!running[@]}"; do
  if wait "${running[$k]}"; then tail -n 1 "$logs/slurm.$k"; else failed=yes; cat "$logs/slurm.$k"; fi
done
echo "tests/slurm: $((SECONDS - begin)) s"
[ -z "$failed" ]
