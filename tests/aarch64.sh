#!/usr/bin/env bash
# The kernels on AArch64: the tests of plans, files and kernels, and the conformance suite over every row of the registry.
# On an AArch64 machine they run as they are, elsewhere under qemu's user emulation with every feature it knows (dotprod and
# i8mm among them). What is missing is installed on Debian and Ubuntu, for which arm64 becomes a foreign architecture of
# the system; otherwise it is printed. Emulated, all of it takes many minutes; tests/run.sh runs it in CI with one case in eight of the
# large suites (CCHAHA_ONE_IN=8).
# Arguments go to the conformance suite: tests/aarch64.sh matmul::
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-unknown-linux-gnu
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/aarch64}"
case "$CARGO_TARGET_DIR" in /*) ;; *) CARGO_TARGET_DIR="$PWD/$CARGO_TARGET_DIR" ;; esac
command -v cargo >/dev/null || { echo "tests/aarch64.sh needs cargo: install Rust from https://rustup.rs" >&2; exit 1; }

# A compiler with the standard library of the target: rustup's after `rustup target add`, or Debian's.
compiler() {
  local rustc folder
  for rustc in rustc /usr/bin/rustc; do
    folder="$("$rustc" --print target-libdir --target "$target" 2>/dev/null)" || continue
    if compgen -G "$folder/libstd-*.rlib" >/dev/null; then echo "$rustc"; return; fi
  done
  return 1
}

emulator() { command -v qemu-aarch64-static || command -v qemu-aarch64; }

# missing: a line for each thing that is not there
missing() {
  compiler >/dev/null || echo "the standard library of $target (rustup target add $target; Debian: rustc-web libstd-rust-web-dev:arm64)"
  command -v aarch64-linux-gnu-gcc >/dev/null || echo "a linker (Debian and Ubuntu: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
  emulator >/dev/null || echo "qemu's user emulation (Debian and Ubuntu: qemu-user-static)"
  # Not the cross compiler's copy of it: programs that start threads hang there.
  [ -e /lib/ld-linux-aarch64.so.1 ] || echo "the C library of arm64 (Debian and Ubuntu: dpkg --add-architecture arm64; libc6:arm64 libgcc-s1:arm64)"
}

install() {
  local root=() packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static libc6:arm64 libgcc-s1:arm64)
  command -v apt-get >/dev/null || return 0
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  compiler >/dev/null || packages+=(rustc-web libstd-rust-web-dev:arm64)
  "${root[@]}" dpkg --add-architecture arm64 && "${root[@]}" apt-get update -qq &&
    "${root[@]}" apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null || true
}

case "$(uname -m)" in
  aarch64 | arm64) flags=() ;;
  *)
    [ -z "$(missing)" ] || install
    if [ -n "$(missing)" ]; then
      echo "tests/aarch64.sh needs:" >&2
      missing >&2
      exit 1
    fi
    RUSTC="$(compiler)"
    export RUSTC CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$(emulator) -cpu max"
    flags=(--target "$target")
    ;;
esac

# Without the examples in documentation, whose compiler would have to be of the same version.
cargo test --release ${flags[@]+"${flags[@]}"} --tests --package cchaha-plan --package cchaha-gguf --package cchaha-kernels

# The conformance suite without the graphics library, which would take longer to build than all else here: a package of the
# same files with no adapters.
suite="$CARGO_TARGET_DIR/conformance"
mkdir -p "$suite"
cp Cargo.lock "$suite/Cargo.lock"
cat >"$suite/Cargo.toml" <<END
[package]
name = "conformance"
version = "0.1.0"
edition = "2024"
[workspace]
[[test]]
name = "conformance"
path = "main.rs"
[dependencies]
cchaha-plan = { path = "$PWD/engine/plan" }
cchaha-kernels = { path = "$PWD/kernels" }
[profile.release]
debug = "line-tables-only"
[profile.release.package.cchaha-plan]
overflow-checks = true
END
{
  echo "#![allow(dead_code)] // what only rows of the GPU use"
  sed -n 's,^mod \(.*\);$,\1,p' tests/tests/conformance/main.rs | while read -r module; do
    case "$module" in
      rounding) ;; # of kernels of the GPU only
      gpu) echo "mod gpu { pub(crate) fn subjects(_: &str) -> Vec<crate::subjects::Subject> { Vec::new() } }" ;;
      *) echo "#[path = \"$PWD/tests/tests/conformance/$module.rs\"] mod $module;" ;;
    esac
  done
} >"$suite/main.rs"
cargo test --release --manifest-path "$suite/Cargo.toml" ${flags[@]+"${flags[@]}"} "$@"
