#!/usr/bin/env bash
# common.sh - what the job scripts share: the site, the container, how a job stops, is requeued and goes on.
#
# It is sourced.  A job script calls, in this order,
#   begin STAGE OUT [INPUTS]   site file, folders, the event `started`, the limit on fruitless requeues
#   run_step SRUN_OPTIONS -- COMMAND   one srun; leaves its exit status in $status
#   finish "$status"           requeue, or the event `ended` and the exit status of the job
#
# Signals.  `--signal=B:USR1@t` comes to the batch shell alone, t seconds before the time limit and, where the cluster
# sets preempt_send_user_signal, also on preemption.  The shell passes it to the step at work, so the daemons of Ray
# live on while the program stores what it has.  On other clusters preemption sends SIGTERM to every process of the
# steps and nothing to the shell; what a step then says is taken for a stop just as well.  So is what is left where
# SLURM itself had to kill the step.
#
# Once signals are trapped there is no $(...): where a trapped signal comes while bash 5.2 parses one, the shell ends
# with a syntax error.  `into` does the same.

HAMSCOPE_HOME=${HAMSCOPE_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
FRUITLESS_STARTS=${HAMSCOPE_FRUITLESS_STARTS:-5} # starts in a row that found nothing new stored
stage='' out='' job='' log='' step='' stopping='' status=0 signals=0 before_exit=true
failed_mark=/dev/null stop_mark=/dev/null
slurm_state=''
prefix=()
shopt -s lastpipe # for `into`

fail() {
  echo "${stage:-hamscope}: $*" >&2
  exit "${FAIL_STATUS:-2}"
}

into() { # VARIABLE COMMAND...: puts the first line that the command says into the variable
  local lines=()
  "${@:2}" | mapfile -t lines
  printf -v "$1" %s "${lines[0]:-}"
}

# A moment.  SLURM's signals meet `sleep` too, and bash would write `Terminated` into the log.
nap() {
  { sleep 0.2; } 2>/dev/null || true
}

# --- the site and the container

load_site() {
  local site=${HAMSCOPE_SITE:-}
  if [ -n "$site" ]; then
    local file=$HAMSCOPE_HOME/slurm/sites/$site.sh known=("$HAMSCOPE_HOME"/slurm/sites/*.sh)
    known=("${known[@]##*/}")
    [ -r "$file" ] || fail "HAMSCOPE_SITE=$site: there is no $file; there are: ${known[*]%.sh}"
    # shellcheck source=slurm/sites/example.sh
    source "$file"
  fi
  [ -z "${HAMSCOPE_VENV:-}" ] || export PATH="$HAMSCOPE_VENV/bin:$PATH"
  export RAY_USAGE_STATS_ENABLED=0
}

# Puts what has to stand before every command into $prefix: nothing, or `apptainer exec` with its options.
enter_container() {
  prefix=()
  [ -n "${HAMSCOPE_CONTAINER:-}" ] || return 0
  [ -r "$HAMSCOPE_CONTAINER" ] || fail "HAMSCOPE_CONTAINER=$HAMSCOPE_CONTAINER: cannot be read; give the path of a .sif"
  command -v apptainer >/dev/null || fail "HAMSCOPE_CONTAINER is set, but there is no apptainer here; load its module"
  local path
  prefix=(apptainer exec)
  for path in "$HAMSCOPE_HOME" "$@" ${HAMSCOPE_BIND:-}; do
    [ -d "$path" ] || into path dirname "$path"
    into path realpath "$path"
    prefix+=(--bind "$path")
  done
  # The ranks find srun's PMIx by a socket in the folder of the job.
  [ -z "${SLURM_JOB_ID:-}" ] || prefix+=(--bind /tmp)
  [ -z "${SLURM_GPUS_ON_NODE:-}" ] || prefix+=(--nv)
  prefix+=("$HAMSCOPE_CONTAINER")
}

mpi_version() { # [COMMAND...]: e.g. "Open MPI 4", what mpiexec says of itself; nothing where there is none
  { "$@" mpiexec --version 2>&1 || true; } | sed -nE 's/.*(Open MPI|OpenRTE|OpenMPI)[^0-9]*([0-9]+)\..*/Open MPI \2/p; s/^ *Version: +([0-9]+)\..*/MPICH \1/p'
}

# An MPI inside the container that differs from srun's outside starts N jobs of one rank, or hangs.
check_container_mpi() {
  [ -n "${HAMSCOPE_CONTAINER:-}" ] || return 0
  local outside inside
  into outside mpi_version
  into inside mpi_version "${prefix[@]}"
  [ -n "$outside" ] || fail "no mpiexec outside the container to compare with; load the MPI module in the site file"
  [ "$outside" = "$inside" ] || fail "the container has ${inside:-no MPI} and this cluster $outside; the major versions" \
    "must agree: build the image on the cluster's MPI, or load the module that fits the image"
}

# --- events, for `hamscope status`

quoted() { # VARIABLE TEXT
  local text=${2//\\/\\\\}
  printf -v "$1" '"%s"' "${text//\"/\\\"}"
}

event() { # EVENT [STATUS]: one line of OUT/jobs.jsonl; a line this short is appended whole
  local now host file
  into host hostname # SLURM sets $HOSTNAME to its own name of the node
  TZ=UTC printf -v now '%(%Y-%m-%dT%H:%M:%SZ)T' -1
  quoted host "$host"
  quoted file "$log"
  printf '{"time": "%s", "stage": "%s", "job": "%s", "event": "%s", "status": %s, "host": %s, "log": %s}\n' \
    "$now" "$stage" "$job" "$1" "${2:-null}" "$host" "$file" >>"$out/jobs.jsonl"
}

last_event() {
  { grep -sF "\"stage\": \"$stage\", \"job\": \"$job\"," "$out/jobs.jsonl" || true; } | tail -n 1
}

# --- a job from its start to its end

begin() { # STAGE OUT [INPUTS]
  stage=$1 out=$2
  # The task of an array: its plain id may be that of the whole array.
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}}
  job=${job:-$SLURM_JOB_ID}
  mkdir -p "$out/logs"
  out=$(cd "$out" && pwd)
  log=$out/logs/$stage.$job.out
  exec >>"$log" 2>&1 </dev/null
  trap 'hear TERM' TERM
  trap 'hear USR1' USR1
  load_site
  enter_container "$out" "${@:3}"
  failed_mark=$out/logs/$stage.$job.failed
  stop_mark=$out/logs/$stage.$job.stop
  rm -f "$failed_mark" "$stop_mark"
  # Where SLURM itself took the job off its nodes, the shell had no time to say so.
  local last
  into last last_event
  if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [[ $last != *'"requeued"'* ]]; then event requeued; fi
  event started
  trap 'ended $?' EXIT
  count_fruitless
}

# What is stored so far: it changes only where a start was worth something.
stored() {
  find "$out"/slices.h5* "$out"/bundle* "$out"/results.h5* -maxdepth 1 -type f \
    ! -name 'progress*.json' \( -path '*.work/*.json' -o -name state.pt -o -path '*.parts/*.npz' -o -name slices.h5 -o -name results.h5 \) \
    -printf '%p %s %T@\n' 2>/dev/null | sort | sha256sum || true
}

count_fruitless() {
  local mark=$out/logs/$stage.$job.stored now seen='' count=0
  into now stored
  if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -e "$mark" ]; then
    read -r count seen <"$mark"
    if [ "$seen" = "$now" ]; then count=$((count + 1)); else count=0; fi
  fi
  echo "$count $now" >"$mark"
  [ "$count" -lt "$FRUITLESS_STARTS" ] || FAIL_STATUS=1 fail "$count starts in a row stored nothing new; give it more" \
    "time (--time), or see $log"
}

hear() {
  stopping=$1
  signals=$((signals + 1))
  : >"$stop_mark" 2>/dev/null || true
  [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null || true
}

# Round every command of a step.  A program that a signal meets in its first or last moments ends as it can: that is a
# stop too (75).  srun passes no signal on to a step that it has not launched yet, so a step that comes later looks for
# the mark of a stop.  SLURM signals one process after the other, the program perhaps first, hence the moment of waiting.
# One that fails unasked leaves its status in a file, since srun then ends the other ranks and returns the largest status.
# shellcheck disable=SC2016
ROUND='
  mark=$1 stop_mark=$2 stop=; shift 2
  trap "stop=1" TERM USR1
  [ ! -e "$stop_mark" ] || exit 75
  "$@" & pid=$!
  while :; do seen=$stop; wait $pid; status=$?; [ "$seen" = "$stop" ] && break; done
  case $status in 0|75) ;; *) { sleep 0.3; } 2>/dev/null ;; esac
  case $status:$stop in
    0:*|2:1|3:1|75:*) ;;
    *:1) status=75 ;;
    *) (set -o noclobber; echo $status >"$mark") 2>/dev/null ;;
  esac
  exit $status'

run_step() { # SRUN_OPTIONS -- COMMAND
  local options=() seen
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  status=75
  [ -z "$stopping" ] || return 0
  srun --quiet --kill-on-bad-exit=1 "${options[@]}" bash -c "$ROUND" step "$failed_mark" "$stop_mark" "${prefix[@]}" "$@" &
  step=$!
  while :; do
    seen=$signals
    status=0
    wait "$step" || status=$?
    [ "$seen" != "$signals" ] || break
  done
  step=''
  if [ -s "$failed_mark" ]; then
    read -r status <"$failed_mark"
    if [ "$status" -gt 128 ] && slurm_ends_it; then status=75; fi
  else
    case $status:$stopping in
      2:*|3:*|75:*) ;;
      0:*|*:) if slurm_ends_it; then status=75; fi ;; # srun may say 0 of a step that SLURM had to kill
      *) status=75 ;;
    esac
  fi
}

ask_slurm() {
  into slurm_state squeue --noheader --format=%T --job "$job" 2>/dev/null || slurm_state=''
}

# Whether this job still runs for SLURM.  After scancel, or where SLURM requeues it itself, it is COMPLETING.
still_runs() {
  ask_slurm
  [ "$slurm_state" = RUNNING ]
}

# Whether SLURM is ending this job: scancel, the time limit, a node that is down.  No, where SLURM does not answer.
slurm_ends_it() {
  ask_slurm
  case $slurm_state in ''|RUNNING|SIGNALING|RESIZING) false ;; esac
}

finish() { # STATUS: the end of a job script
  local status=$1
  if [ "$status" -eq 75 ] && still_runs; then
    echo "$stage: stopped (${stopping:-SIGTERM to the step}), requeued; it goes on from what is stored"
    event requeued 75
    # Before anything else is tidied up: a preempted job has seconds.  SLURM then ends every process of the job, and
    # scontrol must not take its own end for a failure.
    if (trap '' TERM; exec scontrol requeue "$job"); then
      trap - EXIT
      $before_exit || true # SIGTERM hits its commands too
      exit 75
    fi
  fi
  exit "$status"
}

ended() { # STATUS, from the trap on EXIT
  trap - EXIT
  $before_exit || true
  event ended "$1"
  # Quarantined frames (3) are no failure: what depends on this job (afterok) runs.
  [ "$1" -ne 3 ] || exit 0
  exit "$1"
}
