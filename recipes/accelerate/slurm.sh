#!/bin/bash
# sbatch recipes/accelerate/slurm.sh FILE [key=value ...]
#
# One task per machine; torchrun starts a process for each of its GPUs. A job that is cut off or put back into the queue
# goes on from its newest checkpoint: SLURM's signal comes two minutes early, and skd saves when it gets it.
#SBATCH --job-name=skd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}

srun --kill-on-bad-exit=1 torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc-per-node "${SLURM_GPUS_ON_NODE:-8}" \
  --rdzv-backend c10d \
  --rdzv-endpoint "${machines[0]}:29500" \
  --rdzv-id "$SLURM_JOB_ID" \
  -m skd train "$@"
