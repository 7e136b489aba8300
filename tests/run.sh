#!/usr/bin/env bash
# The whole test suite with all its set-up: fetches what it needs into target/, writes the expected files, then runs
# rustfmt, clippy and the tests. With CI=true, nothing may be missing; otherwise what cannot be fetched is one printed line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CCHAHA_TEST_DATA="${CCHAHA_TEST_DATA:-$PWD/target/test-data}"
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

step "rustfmt" cargo fmt --all --check
step "fetch into $CCHAHA_TEST_DATA" python3 tests/fetch.py "$CCHAHA_TEST_DATA"
if [ -x "$python" ]; then
  export PATH="$CCHAHA_TEST_DATA/venv/bin:$PATH" # npm may live there
  step "golden models are what their script makes" "$python" tests/golden/make.py --check
  if [ -d "$llama_cpp" ]; then
    step "chat templates rendered by jinja2" \
      "$python" tests/chat/render.py "$llama_cpp/vendor/llama.cpp/models/templates" "$CCHAHA_TEST_DATA/chat"
    step "tokenizer vectors" "$python" tests/tokenizer/prepare.py --llama-cpp "$llama_cpp" --out "$CCHAHA_TEST_DATA"
  fi
fi
step "clippy" cargo clippy --workspace --all-targets --release -- -D warnings
step "tests" cargo test --workspace --release
echo "==> all passed in $SECONDS s" >&2
