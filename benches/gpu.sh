#!/usr/bin/env bash
# Speed on a graphics card, in one command: benches/gpu.sh [MODEL.gguf ..]
#
# Prints what the card is and how fast it reads and multiplies, then on a model with the shapes of 7 billion weights (made here, with
# random weights, in target/gpu) and on every MODEL given:
#
#   where the time goes   every kernel's GB/s and its share of our own read probe, and how much of that speed a token gets
#   rows by name          every row of matrix kernels for one token, and for many: the cooperative one beside the tiled one
#   beside llama.cpp      decode and prefill on the same card, both programs in turn; its Vulkan build is made in target/yardstick
#
# What cannot be done here is one line that says why. LLAMA_BENCH=PATH is a llama-bench to use instead of building one, LAYERS=N makes
# the model smaller (32 layers, 4 GB). On a software adapter, where nothing is fast, all is small: that tests this script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for model in "$@"; do
  [ -f "$model" ] || { echo "benches/gpu.sh: there is no file $model" >&2; exit 2; }
done
command -v cargo >/dev/null || { echo "benches/gpu.sh needs cargo: install Rust from https://rustup.rs" >&2; exit 1; }
cargo build --release --package cchaha-run --package cchaha-benches --bins
bin="${CARGO_TARGET_DIR:-target}/release"
out=target/gpu
mkdir -p "$out"

echo "== what there is"
"$bin/cchaha-run" doctor | tee "$out/doctor.txt"
kind=hardware prompt=512 gen=64 repetitions=3 rounds=5 layers="${LAYERS:-32}"
if ! grep -q '^  kind ' "$out/doctor.txt"; then
  echo "skipped: everything, for want of a graphics adapter"
  exit 5
elif ! grep '^  kind ' "$out/doctor.txt" | grep -qv software; then
  kind=software prompt=16 gen=2 repetitions=1 rounds=1 layers="${LAYERS:-tiny}"
  echo "no graphics card, only a software adapter: the figures say nothing, and everything is made small"
fi

synthetic="$out/synthetic-$layers.gguf"
[ -f "$synthetic" ] || { echo "writing $synthetic"; "$bin/synthetic-model" "$synthetic" "$layers"; }

# on MODEL FLAGS..: a bench on the card
on() {
  "$bin/cchaha-run" bench -m "$1" --device gpu -r "$repetitions" "${@:2}"
}

for model in "$synthetic" "$@"; do
  name="$(basename "$model" .gguf)"
  echo "== $name: where the time goes ($out/$name.svg)"
  on "$model" -p "$prompt" -n "$gen" --profile "$out/$name.svg" ||
    echo "skipped: $name, which does not run here"
done

echo "== kernels chosen by time"
"$bin/cchaha-run" kernels --gpu | sed -n '/^chosen by time/,$p' | grep . || echo "none: rows are chosen by time on hardware only"

# rows PATTERN: names of rows of the GPU's table
rows() { "$bin/cchaha-run" kernels --gpu | awk '{ print $1 }' | grep -E "$1"; }

# by_name FLAGS ROWS..: one line for every row, or for rows joined by commas
by_name() {
  local row line
  for row in "${@:2}"; do
    # shellcheck disable=SC2086
    if line="$(on "$synthetic" $1 --kernel "$row" 2>"$out/error.txt")"; then
      echo "$row: $(tail -n 1 <<<"$line" | awk -F'|' '{ print $7, $8 }' | xargs) t/s"
    else
      echo "skipped: $row: $(sed -n 's/^error: //p' "$out/error.txt" | head -n 1)"
    fi
  done
}

echo "== rows for one token, by name"
pairs=()
for row in $(rows '^wgsl-.*-gemv1'); do pairs+=("$row,${row/gemv1/gated1}"); done
by_name "-p 0 -n $gen" "${pairs[@]}"
echo "== rows for many tokens, by name"
# shellcheck disable=SC2046
by_name "-p $prompt -n 0" $(rows '^wgsl-.*-(gemm|coop)')

echo "== beside llama.cpp"
yardstick=(python3 benches/yardstick.py "$synthetic" "$@" --vulkan -p "$prompt" -n "$gen" -r "$rounds")
missing=()
command -v python3 >/dev/null || missing+=(python3)
if [ -z "${LLAMA_BENCH:-}" ]; then
  command -v c++ >/dev/null || missing+=("a C++ compiler")
  command -v glslc >/dev/null || missing+=("glslc (Debian and Ubuntu: apt install glslc libvulkan-dev spirv-headers)")
fi
if [ "$kind" = software ] && [ -z "${LLAMA_BENCH:-}" ]; then
  echo "skipped: llama.cpp, which takes no software adapter"
elif [ "${#missing[@]}" -gt 0 ]; then
  echo "skipped: llama.cpp's Vulkan build, which needs $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
else
  "${yardstick[@]}" ${LLAMA_BENCH:+--llama-bench "$LLAMA_BENCH"} 2>"$out/yardstick.log" ||
    echo "skipped: llama.cpp's Vulkan build failed; see $out/yardstick.log"
fi
