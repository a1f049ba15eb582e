#!/usr/bin/env bash
# A study on the nodes of a Slurm job: sbatch [options of sbatch] deploy/slurm.sh NAME [options of absld_search.run]
#
# One Ray node on each machine, the driver beside the first. The same script goes on after a requeue: what is finished
# is in the database, which is PostgreSQL or, where nobody else writes, SQLite on a disk of the first machine.
#
#SBATCH --job-name=absld
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output=absld-%j.log
#SBATCH --signal=B:TERM@300
set -euo pipefail

PORT=${ABSLD_RAY_PORT:-6379}
MOST_RESTARTS=${ABSLD_MOST_RESTARTS:-100}
PYTHON=${ABSLD_PYTHON:-python}
PATIENCE=${ABSLD_PATIENCE:-600} # seconds for all nodes to join

# Whoever reaches Ray's ports can run code as this user, so every node and the driver share a token of this job alone.
umask 077
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0

ray() { "$PYTHON" -c 'from ray.scripts.scripts import main; main()' "$@"; }

driver= asked= stopped=
trap 'asked=1 stopped=1; [[ -z $driver ]] || kill -TERM "$driver" 2>/dev/null || true' TERM INT

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
ip= waited=0
# After a requeue the last run's steps may still be ending, and Slurm starts no new ones for a moment.
first() { srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk 'NR == 1 {print $1}'; }
until [[ -n $stopped ]] || { ip=$(first) && [[ -n $ip ]]; }; do
  ((waited += 2)) && ((waited > PATIENCE)) && { echo "Slurm starts no step on $head" >&2; exit 1; }
  sleep 2
done
address=$ip:$PORT
node=("$PYTHON" -c 'from ray.scripts.scripts import main; main()' start --block "--num-cpus=${SLURM_CPUS_ON_NODE:-1}")

start_head() {
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    "${node[@]}" --head "--node-ip-address=$ip" "--port=$PORT" --include-dashboard=false &
  head_step=$!
}
[[ -n $stopped ]] || start_head
until [[ -n $stopped ]] || ray health-check "--address=$address" >/dev/null 2>&1; do
  ((waited += 2)) && ((waited > PATIENCE)) && { echo "Ray's head at $address does not answer" >&2; exit 1; }
  sleep 2
  kill -0 "$head_step" 2>/dev/null || start_head # its port may have been the last run's for a moment
done
if [[ -z $stopped ]] && ((${#hosts[@]} > 1)); then
  srun --overlap --nodes=$((${#hosts[@]} - 1)) --ntasks=$((${#hosts[@]} - 1)) --exclude="$head" --kill-on-bad-exit=0 \
    "${node[@]}" "--address=$address" &
fi
joined() {
  "$PYTHON" -c 'import ray, sys; ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))' "$address" 2>/dev/null | tail -n 1
}
while [[ -z $stopped && $(joined) != "${#hosts[@]}" ]] && ((waited < PATIENCE)); do
  sleep 2
  ((waited += 2))
done

code=75
if [[ -z $stopped ]]; then # else the time was up before all nodes had joined
  "$PYTHON" -m absld_search.run "$@" --address "$address" &
  driver=$!
  asked=1
  while [[ -n $asked ]]; do # a signal ends the wait, not the driver, which saves everything and ends with 75
    asked= found=0
    wait "$driver" || found=$?
    ((found == 127)) || code=$found
  done
fi
trap : TERM INT # nothing more to stop

# Ray's nodes end before the job does, or its next run would find their ports taken.
steps=$(jobs -pr)
kill $steps 2>/dev/null || true
for ((left = 30; left > 0; left--)); do
  kill -0 $steps 2>/dev/null || break
  sleep 1
done
kill -KILL $steps 2>/dev/null || true
trap - TERM INT

# A job that is cancelled gets SIGTERM too, and one that is preempted is requeued by Slurm: neither is RUNNING any more.
for ((try = 0; try < 10 && code == 75 && ${SLURM_RESTART_COUNT:-0} < MOST_RESTARTS; try++)); do
  state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) || true
  [[ $state == RUNNING ]] || break
  echo "interrupted: requeued to go on" >&2
  scontrol requeue "$SLURM_JOB_ID" && sleep 600 # which ends this script; refused while the job is still changing
  sleep 3
done
exit "$code"
