#!/usr/bin/env bash
# ray.sh - a Ray cluster in the allocation of a job, its own: ports from the job id, a token, a private folder.
#
# Sourced by a job script: `start_ray_cluster` after `begin`; $end_ray stops it, also from the trap on EXIT.
# Run by srun on every node: `ray.sh node`, the daemons of this node, which live no longer than it does.
#
# A signal that ends a process of SLURM's ends all: srun -> ray.sh node -> ray start --block -> daemons, each told by
# the kernel of its parent's death.  `ray stop` would hit every Ray of the user, and `ray symmetric-run` hides failures.
# shellcheck disable=SC2154,SC2153,SC2034 # the variables of common.sh

ray_folder() {
  local mine
  into mine id -un
  mine=/tmp/$mine
  (umask 077; mkdir -p "$mine")
  if [ ! -O "$mine" ] || [ -L "$mine" ]; then
    echo "$mine: belongs to somebody else; ask its owner to remove it" >&2
    return 1
  fi
  echo "$mine/r$SLURM_JOB_ID" # short: the names of sockets may have 107 bytes
}

# The address of this host in the network; some hosts files give a host's own name a loopback address.
own_ip() {
  local ip
  into ip hostname
  into ip getent ahostsv4 "$ip"
  [[ $ip != 127.* ]] || into ip hostname -I
  echo "${ip%% *}"
}

# --- in the job script

start_ray_cluster() {
  local port=$((20000 + SLURM_JOB_ID % 4000 * 3)) folder user host nodes=$SLURM_JOB_NUM_NODES
  RAY_LOG=$out/logs/ray.$job.out
  into folder ray_folder
  rm -rf "$folder"
  (umask 077; mkdir "$folder"; head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$folder/token")
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
  if [ "$SLURM_JOB_NUM_NODES" = 1 ]; then
    # Nothing listens on the network: Ray takes loopback where it is told that this is no machine of a cluster.
    export HAMSCOPE_RAY_IP=127.0.0.1 RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
  else
    [ -n "${HAMSCOPE_RAY_IP:-}" ] || into HAMSCOPE_RAY_IP own_ip
  fi
  export HAMSCOPE_RAY_IP HAMSCOPE_RAY_PORT=$port RAY_ADDRESS=$HAMSCOPE_RAY_IP:$port
  # The token goes to the nodes by stdin: no command line and no environment shows it.
  srun --quiet --overlap --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" --unbuffered --kill-on-bad-exit=1 \
    "${prefix[@]}" bash "$HAMSCOPE_HOME/slurm/ray.sh" node <"$folder/token" >"$RAY_LOG" 2>&1 &
  ray_step=$!
  before_exit=end_ray
  wait_for_ray
  [ -z "$stopping" ] || return 0
  into user id -un
  into host hostname -f 2>/dev/null || into host hostname
  if [ "$nodes" = 1 ]; then nodes='1 node'; else nodes="$nodes nodes"; fi
  echo "$stage: Ray on $nodes; its dashboard: ssh -N -L 8265:127.0.0.1:$((port + 1)) $user@$host," \
    "then http://127.0.0.1:8265 with the token in $folder/token of that host"
}

wait_for_ray() {
  local left=$((${HAMSCOPE_RAY_WAIT:-180} * 5)) ready
  while :; do
    into ready nodes_ready
    [ "$ready" -lt "$SLURM_JOB_NUM_NODES" ] || break
    # A stop that comes now is left to run_step.
    [ -z "$stopping" ] || return 0
    if ! kill -0 "$ray_step" 2>/dev/null; then
      tail -n 5 "$RAY_LOG" >&2
      FAIL_STATUS=1 fail "Ray did not start; these are the last lines of $RAY_LOG"
    fi
    left=$((left - 1))
    [ "$left" -gt 0 ] || FAIL_STATUS=1 fail "not all nodes of Ray were there in time; see $RAY_LOG"
    nap
  done
}

nodes_ready() {
  grep -cs '^ray node .* is ready$' "$RAY_LOG" || echo 0
}

end_ray() {
  local left=75 folder
  [ -n "${ray_step:-}" ] || return 0
  kill -USR2 "$ray_step" 2>/dev/null || true
  while kill -0 "$ray_step" 2>/dev/null && [ "$left" -gt 0 ]; do
    left=$((left - 1))
    nap
  done
  kill -KILL "$ray_step" 2>/dev/null || true
  ray_step=''
  into folder ray_folder
  rm -rf "$folder"
}

# --- on every node

ray_node() {
  local folder own token ray end='' ip options
  IFS= read -r token || [ -n "$token" ]
  trap 'end=1' USR2
  trap 'end=1' TERM
  trap '' USR1
  into folder ray_folder
  umask 077
  mkdir -p "$folder"
  # The head's script made it there; written aside first, so that nobody reads half of it.
  [ -s "$folder/token" ] || { printf %s "$token" >"$folder/token.$$" && mv "$folder/token.$$" "$folder/token"; }
  own=$folder/n$SLURM_NODEID
  mkdir "$own"
  ip=$HAMSCOPE_RAY_IP
  [[ $ip == 127.* ]] || [ "$SLURM_NODEID" = 0 ] || into ip own_ip
  if [ "$SLURM_NODEID" = 0 ]; then
    options=(--head --port="$HAMSCOPE_RAY_PORT"
      --dashboard-host=127.0.0.1 --dashboard-port=$((HAMSCOPE_RAY_PORT + 1))
      --ray-client-server-port=$((HAMSCOPE_RAY_PORT + 2)))
  else
    options=(--address="$RAY_ADDRESS")
  fi
  setpriv --pdeathsig KILL ray start --block --disable-usage-stats --temp-dir="$own" --log-color=false \
    --num-cpus="${SLURM_CPUS_ON_NODE%%(*}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --object-store-memory="${HAMSCOPE_OBJECT_STORE:-268435456}" --dashboard-agent-listen-port=0 \
    --node-ip-address="$ip" "${options[@]}" >"$own/start.log" 2>&1 </dev/null &
  ray=$!
  until [ -n "$end" ] || grep -qs 'Ray runtime started' "$own/start.log"; do
    kill -0 "$ray" 2>/dev/null || { cat "$own/start.log"; exit 1; }
    nap
  done
  echo "ray node $SLURM_NODEID is ready"
  while [ -z "$end" ] && kill -0 "$ray" 2>/dev/null; do wait "$ray" || true; done
  [ -n "$end" ] || { tail -n 20 "$own/start.log"; exit 1; }
  kill -TERM "$ray" 2>/dev/null || true
  for _ in {1..50}; do
    kill -0 "$ray" 2>/dev/null || break
    nap
  done
  kill -KILL "$ray" 2>/dev/null || true
  rm -rf "$own"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  # shellcheck source=slurm/common.sh
  source "${BASH_SOURCE[0]%/*}/common.sh"
  [ "${1:-}" = node ] || { echo "ray.sh: is run by the job scripts" >&2; exit 2; }
  ray_node
fi
