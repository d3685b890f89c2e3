#!/bin/sh
# Starts a parallel program: mpi.sh TASKS [OPTION OF SRUN]… -- COMMAND…
tasks=$1
shift
if [ -n "${SLURM_JOB_ID:-}" ] && command -v srun >/dev/null 2>&1; then
    # Since 22.05 srun does not take it over by itself.
    export SRUN_CPUS_PER_TASK="${SRUN_CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK:-1}}"
    exec srun "$@"
fi
while [ "$1" != -- ]; do
    shift
done
shift
exec mpiexec -n "$tasks" "$@"
