#!/usr/bin/env bash
# Speed on a graphics card, in one command: benches/gpu.sh MODEL.gguf [LLAMA_BENCH]
#
# Prints what the card is and how fast it reads and multiplies, then prefill and decode of the model on it and on the processor, and
# the card's time by kernel (as a picture too, in target/gpu-profile.svg); with a Vulkan build of llama-bench, the same on
# that for comparison. All figures are of one run on one machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -ge 1 ] || { sed -n '2,2p' "$0" | cut -c3- >&2; exit 2; }
model="$1" llama_bench="${2:-}"
[ -f "$model" ] || { echo "benches/gpu.sh: there is no file $model" >&2; exit 2; }

mkdir -p target
cargo build --release --package cchaha-run
run="${CARGO_TARGET_DIR:-target}/release/cchaha-run"

echo "== what there is"
"$run" doctor -m "$model"
echo "== cchaha on the gpu"
"$run" bench -m "$model" --device gpu --profile target/gpu-profile.svg
echo "== kernels chosen by time"
"$run" kernels --gpu | sed -n '/^chosen by time/,$p'
echo "== cchaha on the cpu"
"$run" bench -m "$model" --device cpu
if [ -n "$llama_bench" ]; then
  echo "== llama.cpp ($llama_bench)"
  "$llama_bench" -m "$model" -ngl 99 -fa 1 -p 512 -n 128
fi
