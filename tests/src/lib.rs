//! Shared helpers of the integration tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A program of the workspace, built once in the profile of this test: Cargo builds no binaries of other packages for a
/// test.
///
/// # Panics
/// Where it does not build.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Builds every program, and tests: features are then those that `cargo test --workspace` has, and nothing is compiled twice.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile_dir = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
    let target_dir = profile_dir.parent().expect("target/PROFILE");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("no profile in {}", profile_dir.display()),
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--bins", "--tests", "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the programs do not build");
    profile_dir.to_owned()
}
