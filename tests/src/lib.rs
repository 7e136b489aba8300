//! Shared helpers of the integration tests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// The program of this package's name, built once in the profile of this test: Cargo builds no binaries of other
/// packages for a test.
///
/// # Panics
/// Where it does not build.
pub fn binary(package: &str) -> PathBuf {
    program(package, package)
}

/// The program `name` of a package.
///
/// # Panics
/// Where it does not build.
pub fn program(package: &str, name: &str) -> PathBuf {
    static BUILT: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    let mut built = BUILT.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    built.entry(name.to_owned()).or_insert_with(|| build(package, name)).clone()
}

fn build(package: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile_dir = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
    let target_dir = profile_dir.parent().expect("target/PROFILE");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("no profile in {}", profile_dir.display()),
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", package, "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{package} does not build");
    profile_dir.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}
