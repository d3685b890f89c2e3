#!/bin/sh
# Starts a parallel program: mpi.sh TASKS [OPTION OF SRUN]… -- COMMAND…
tasks=$1
shift
if [ -n "${SLURM_JOB_ID:-}" ] && command -v srun >/dev/null 2>&1; then
    exec srun "$@"
fi
while [ "$1" != -- ]; do
    shift
done
shift
exec mpiexec -n "$tasks" "$@"
