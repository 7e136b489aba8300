#!/usr/bin/env bash
# The whole test suite with all its set-up: fetches what it needs into target/, writes the expected files, then runs
# rustfmt, clippy and the tests. With CI=true, nothing may be missing; otherwise what cannot be fetched is one printed line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CCHAHA_TEST_DATA="${CCHAHA_TEST_DATA:-$PWD/target/test-data}"
case "$CCHAHA_TEST_DATA" in /*) ;; *) CCHAHA_TEST_DATA="$PWD/$CCHAHA_TEST_DATA" ;; esac
python="$CCHAHA_TEST_DATA/venv/bin/python"
llama_cpp="$CCHAHA_TEST_DATA/llama-cpp-python"

need() { command -v "$1" >/dev/null || { echo "tests/run.sh needs $1: $2" >&2; exit 1; }; }
need cargo "install Rust from https://rustup.rs"
need python3 "install Python 3.10 or newer (Debian and Ubuntu: apt install python3 python3-venv)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "tests/run.sh needs Python 3.10 or newer" >&2; exit 1; }

# step NAME COMMAND...: runs a command and prints how long it took
step() {
  local name="$1" start=$SECONDS
  shift
  echo "==> $name" >&2
  "$@" || { echo "==> $name failed after $((SECONDS - start)) s" >&2; exit 1; }
  echo "==> $name: $((SECONDS - start)) s" >&2
}

# A software graphics adapter, so that the GPU kernels are tested on every machine, and the layer that checks how it is
# used. CI insists on an adapter.
vulkan() {
  compgen -G "/usr/share/vulkan/icd.d/*.json" >/dev/null && return
  compgen -G "/etc/vulkan/icd.d/*.json" >/dev/null && return
  [ "$(uname)" = Linux ] || return 0
  command -v apt-get >/dev/null || { echo "install a Vulkan driver (Debian and Ubuntu: mesa-vulkan-drivers)" >&2; return 1; }
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  "${root[@]}" apt-get update -qq && "${root[@]}" apt-get install -qq -y --no-install-recommends mesa-vulkan-drivers vulkan-validationlayers >/dev/null
}

# fetching NAME COMMAND...: a step that needs the network, and that only CI insists on
fetching() {
  if [ "${CI:-}" = true ]; then step "$@"; else (step "$@") || echo "skipped: $1"; fi
}

# fresh FILE SOURCE...: whether FILE is there and newer than every SOURCE
fresh() {
  local source
  for source in "${@:2}"; do [ "$1" -nt "$source" ] || return 1; done
}

step "rustfmt" cargo fmt --all --check
fetching "a Vulkan driver" vulkan
if [ "${CI:-}" = true ]; then export CCHAHA_REQUIRE_GPU=1; fi
step "fetch into $CCHAHA_TEST_DATA" python3 tests/fetch.py "$CCHAHA_TEST_DATA"
if [ -x "$python" ]; then
  export PATH="$CCHAHA_TEST_DATA/venv/bin:$PATH" # npm may live there
  step "golden models are what their script makes" "$python" tests/golden/make.py --check
fi
if [ -x "$python" ] && [ -f "$llama_cpp/sha256" ]; then
  if ! fresh "$CCHAHA_TEST_DATA/chat/expected.json" "$llama_cpp/sha256" tests/chat/*; then
    step "chat templates rendered by jinja2" \
      "$python" tests/chat/render.py "$llama_cpp/vendor/llama.cpp/models/templates" "$CCHAHA_TEST_DATA/chat"
  fi
  if ! fresh "$CCHAHA_TEST_DATA/tokenizer/complete" "$llama_cpp/sha256" tests/tokenizer/*; then
    rm -f "$CCHAHA_TEST_DATA/tokenizer/complete"
    fetching "tokenizer vectors" "$python" tests/tokenizer/prepare.py --llama-cpp "$llama_cpp" --out "$CCHAHA_TEST_DATA"
  fi
fi
fetching "source files in eight languages" python3 tests/code/fetch.py "$CCHAHA_TEST_DATA"
step "clippy" cargo clippy --workspace --all-targets --release -- -D warnings

# Tests of this crate that need fetched material: NAME of tests/tests/NAME.rs, and a file it cannot do without.
material=(
  chat_templates chat/expected.json
  structure code/complete
  tokenizer tokenizer/complete
)
skipped=" "
for ((i = 0; i < ${#material[@]}; i += 2)); do
  if [ ! -e "$CCHAHA_TEST_DATA/${material[i + 1]}" ]; then
    echo "skipped: tests/tests/${material[i]}.rs, for want of $CCHAHA_TEST_DATA/${material[i + 1]}"
    skipped+="${material[i]} "
  fi
done
if [ "$skipped" = " " ]; then
  step "tests" cargo test --workspace --release
else
  suite=()
  for file in tests/tests/*.rs; do
    name="$(basename "$file" .rs)"
    case "$skipped" in *" $name "*) ;; *) suite+=(--test "$name") ;; esac
  done
  step "tests of the crates" cargo test --workspace --release --exclude cchaha-tests
  step "tests of the whole" cargo test --package cchaha-tests --release "${suite[@]}"
fi
# The kernels for AArch64. An emulator is slow: of the large suites some cases.
if [ "${CI:-}" = true ] && [ "$(uname -m)" = x86_64 ]; then
  step "kernels for AArch64, emulated" env CCHAHA_ONE_IN=8 tests/aarch64.sh
fi
echo "==> done in $SECONDS s" >&2
