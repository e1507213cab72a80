#!/usr/bin/env bash
# pipeline.sh CONFIG FRAMES OUT - submits the whole way: simulate, then train, then classify and report, each when the
# one before it has ended well.  OUT is laid out as by `hamscope run`.
#   HAMSCOPE_SITE=NAME        slurm/sites/NAME.sh
#   HAMSCOPE_PARTS=N          simulate as N jobs of an array, then one that writes the file
#   HAMSCOPE_SIMULATE, HAMSCOPE_TRAIN, HAMSCOPE_CLASSIFY   more options of sbatch for a stage, such as "--nodes=4"
set -euo pipefail
HAMSCOPE_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export HAMSCOPE_HOME
# shellcheck source=slurm/common.sh
source "$HAMSCOPE_HOME/slurm/common.sh"
[ $# -eq 3 ] || { echo "usage: slurm/pipeline.sh CONFIG FRAMES OUT" >&2; exit 2; }
[ -r "$1" ] || fail "$1: there is no such config"
config=$(realpath "$1")
[ -e "$2" ] || compgen -G "$2" >/dev/null || fail "$2: there are no such frames"
frames=$(realpath -m "$2")
mkdir -p "$(dirname "$3")"
out=$(realpath -m "$3")
load_site
enter_container "$(dirname "$out")" "$config"
# What is wrong with the config or the folder is said now, not when the queue is through.
"${prefix[@]}" python - "$config" "$out" <<'CLAIM'
import sys
from pathlib import Path
from hamscope.config import load_config
from hamscope.errors import UserError
from hamscope_hpc.run import claim_folder
try:
    config = load_config(sys.argv[1])
    if config.train is None:
        raise UserError(f"{sys.argv[1]}: has no [train] section; add one")
    claim_folder(Path(sys.argv[2]), config)
except UserError as error:
    print(f"pipeline: {error}", file=sys.stderr)
    sys.exit(error.exit_status)
CLAIM
mkdir -p "$out/logs"

submit() { # STAGE AFTER OPTIONS_OF_SBATCH... -- ARGUMENTS: leaves the id of the job in $job
  local after=$2 options=()
  stage=$1
  shift 2
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  [ -z "$after" ] || options+=(--dependency="afterok:$after" --kill-on-invalid-dep=yes)
  job=$(cd "$HAMSCOPE_HOME" && sbatch --parsable "${options[@]}" "slurm/$stage.sbatch" "$@")
  job=${job%%;*} # of several clusters sbatch adds the name
  log=$out/logs/$stage.$job.out
  [[ ${options[*]} != *--array* ]] || log=$out/logs/$stage.${job}_K.out
  event submitted
  echo "$stage: job $job, log $log"
  jobs+=("$job")
}

jobs=()
read -ra simulate <<<"${HAMSCOPE_SIMULATE:-}"
read -ra train <<<"${HAMSCOPE_TRAIN:-}"
read -ra classify <<<"${HAMSCOPE_CLASSIFY:-}"
[ -z "${HAMSCOPE_GPUS_PER_NODE:-}" ] || { train+=(--gpus-per-node="$HAMSCOPE_GPUS_PER_NODE")
  classify+=(--gpus-per-node="$HAMSCOPE_GPUS_PER_NODE"); }
job=
if [ -n "${HAMSCOPE_PARTS:-}" ]; then
  submit simulate '' "${simulate[@]}" --array="1-$HAMSCOPE_PARTS" -- "$config" "$out"
fi
submit simulate "$job" "${simulate[@]}" -- "$config" "$out"
submit train "$job" "${train[@]}" -- "$config" "$out"
submit classify "$job" "${classify[@]}" -- "$config" "$frames" "$out"
ids=$(IFS=,; echo "${jobs[*]}")
echo "watch: squeue --jobs=$ids"
echo "watch: hamscope status $out"
echo "watch: grep -h 'ssh -N' $out/logs/*.out      the tunnel to Ray's dashboard, while training or classification runs"
