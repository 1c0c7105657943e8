#!/bin/bash
# Pre-training on several nodes of 8 GPUs: sbatch recipes/slurm/pretrain.sh book.txt --model gpt2-xl --out runs/xl
# Rerun the same command to resume. Slurm sends SIGTERM two minutes before the time limit, and a checkpoint is saved.
# For a model too large for one GPU: SHARDING="--use_fsdp --fsdp_version 2" sbatch recipes/slurm/pretrain.sh ...
#SBATCH --job-name=gptkit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
set -euo pipefail

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
main=${hosts[0]}
port=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 8)) TORCH_ELASTIC_SHUTDOWN_TIMEOUT=110
export SHARDING=${SHARDING:---multi_gpu}

# srun does not inherit --cpus-per-task from sbatch.
# shellcheck disable=SC2016 # SLURM_NODEID differs by node
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 bash -c 'exec accelerate launch $SHARDING \
  --num_machines "$SLURM_NNODES" --num_processes $((8 * SLURM_NNODES)) --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$0" --main_process_port "$1" --rdzv_backend static --same_network \
  --mixed_precision no --dynamo_backend no -m gptkit pretrain "${@:2}"' "$main" "$port" "$@"
