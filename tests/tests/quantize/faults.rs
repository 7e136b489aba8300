//! Killed, and with every write, fsync and rename failing: the target is what it was or complete, the source untouched,
//! and the next run leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cchaha_gguf::{Dims, Metadata, TensorSpec, Value};
use cchaha_plan::Format;
use tempfile::{TempDir, tempdir};

use crate::{Random, quantize};

/// A source, what it becomes, and a folder for them.
struct Case {
    folder: TempDir,
    complete: Vec<u8>,
    source: Vec<u8>,
}

impl Case {
    /// A model of `n` tensors of 1 MiB.
    fn new(n: usize) -> Case {
        let folder = tempdir().unwrap();
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", Value::Str("llama".into()));
        let specs: Vec<TensorSpec> = (0..n)
            .map(|i| TensorSpec {
                name: format!("blk.{i}.ffn_up.weight"),
                format: Format::F32,
                dims: Dims::new(&[512, 512]).unwrap(),
            })
            .collect();
        let mut random = Random(1);
        let input = folder.path().join("in.gguf");
        cchaha_gguf::write(&input, &metadata, &specs, |_, out| {
            let values: Vec<u8> = (0..512 * 512).flat_map(|_| random.next().to_le_bytes()).collect();
            out.write_all(&values)
        })
        .unwrap();
        let mut case = Case { source: fs::read(&input).unwrap(), complete: Vec::new(), folder };
        assert!(case.command().status().unwrap().success());
        case.complete = fs::read(case.target()).unwrap();
        fs::remove_file(case.target()).unwrap();
        case
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("out.gguf")
    }

    fn command(&self) -> Command {
        let mut command = quantize(&["-t", "Q4_K_S", "--pure", "-j", "2", "--force"]);
        command.arg(self.folder.path().join("in.gguf")).arg(self.target());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The target is `before` or complete; gives back whether it is complete.
    fn check(&self, before: Option<&[u8]>, what: &str) -> bool {
        let now = fs::read(self.target()).ok();
        let complete = now.as_deref() == Some(&self.complete);
        assert!(complete || now.as_deref() == before, "{what}: the target is something else");
        assert!(
            fs::read(self.folder.path().join("in.gguf")).unwrap() == self.source,
            "{what}: the source changed"
        );
        complete
    }
}

#[test]
fn killed_at_any_time() {
    let case = Case::new(24);
    let start = Instant::now();
    assert!(case.command().status().unwrap().success());
    let whole = start.elapsed();
    let (mut complete, mut left_over) = (0, 0);
    for point in 0..50 {
        // Every other time there is an old file in the target's place.
        let before = (point % 2 == 1).then_some(&b"old"[..]);
        let _ = fs::remove_file(case.target());
        if let Some(before) = before {
            fs::write(case.target(), before).unwrap();
        }
        let mut child = case.command().spawn().unwrap();
        std::thread::sleep(whole.mul_f64(1.1 * f64::from(point) / 50.0).max(Duration::from_millis(1)));
        let _ = child.kill();
        child.wait().unwrap();
        complete += usize::from(case.check(before, &format!("killed at point {point}")));
        left_over += usize::from(case.names().iter().any(|name| name.ends_with(".tmp")));
    }
    assert!(complete < 50 && left_over > 0, "the kills came too late to prove anything");
    assert!(case.command().status().unwrap().success());
    assert!(case.check(None, "after all"));
    assert_eq!(case.names(), ["in.gguf", "out.gguf"], "temporary files were left");
}

/// The library that makes calls fail, compiled by the same C compiler that links this test.
fn library(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("quantize/fail.c");
    let library = folder.join("fail.so");
    let built = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(built.expect("a C compiler, as linking needs one").success());
    library
}

#[test]
fn calls_that_fail() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let case = Case::new(3);
    let tools = tempdir().unwrap();
    let library = library(tools.path());
    let failing = |call: &str, at: usize, errno: i32| {
        let mut command = case.command();
        command.env("LD_PRELOAD", &library).env("FAIL_CALL", call);
        command.env("FAIL_AT", at.to_string()).env("FAIL_ERRNO", errno.to_string());
        command
    };
    for call in ["write", "fsync", "rename"] {
        let log = tools.path().join(call);
        assert!(failing(call, 0, 0).env("FAIL_LOG", &log).status().unwrap().success());
        let calls = fs::read(&log).unwrap().len();
        assert!(calls > 0, "{call} is never called");
        for errno in [ENOSPC, EIO] {
            for at in 1..=calls {
                for before in [None, Some(&b"old"[..])] {
                    let _ = fs::remove_file(case.target());
                    if let Some(before) = before {
                        fs::write(case.target(), before).unwrap();
                    }
                    let what = format!("{call} {at} of {calls} failing with {errno}");
                    let status = failing(call, at, errno).status().unwrap();
                    let complete = case.check(before, &what);
                    assert_eq!(status.code(), Some(3), "{what}");
                    // The last fsync is that of the folder, after the rename.
                    assert!(!complete || call == "fsync" && at == calls, "{what}");
                    let expected: &[&str] =
                        if before.is_some() || complete { &["in.gguf", "out.gguf"] } else { &["in.gguf"] };
                    assert_eq!(case.names(), expected, "{what}");
                }
            }
        }
    }
}
