//! Runs a program nobody has looked at: a process group and, on Linux, namespaces of its own without network; limits on
//! memory, processor time, wall time and file size; an empty folder that is gone afterwards.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cchaha_cli::exit::{Failure, Result};

/// What a program may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) wall: Duration,
    pub(crate) memory_mib: u64,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With exit code 0.
    Passed,
    /// Otherwise; the last line it wrote to stderr.
    Failed(String),
    /// It ran past its time.
    TimedOut,
}

/// How programs are kept apart from the machine.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    python: String,
    isolate: bool,
    limits: Limits,
}

/// Most bytes of output that are looked at.
const OUTPUT: u64 = 64 << 10;

const ISOLATE: [&str; 8] =
    ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--"];

impl Sandbox {
    /// Finds out what the machine can do.
    pub(crate) fn new(python: &str, allow_network: bool, limits: Limits) -> Result<Sandbox> {
        let isolates = Command::new(ISOLATE[0])
            .args(&ISOLATE[1..])
            .arg("true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !isolates && !allow_network {
            return Err(Failure::usage(
                "this machine does not let programs be cut off from the network (`unshare --net` fails); \
                 run in a container without network and give --allow-network",
            ));
        }
        let sandbox = Sandbox { python: python.to_owned(), isolate: isolates, limits };
        let problem = match sandbox.run("pass")? {
            Ended::Passed => return Ok(sandbox),
            Ended::Failed(message) => message,
            Ended::TimedOut => format!("it takes longer than {} s", limits.wall.as_secs()),
        };
        Err(Failure::usage(format!(
            "{python} does not run an empty program ({problem}); give the path of a Python 3 with --python"
        )))
    }

    /// Runs a Python program.
    pub(crate) fn run(&self, program: &str) -> Result<Ended> {
        let folder = tempfile::tempdir().map_err(Failure::other)?;
        let file = folder.path().join("program.py");
        std::fs::write(&file, program).map_err(Failure::other)?;
        let seconds = self.limits.wall.as_secs() + 1;
        let limits = format!(
            "ulimit -v {}; ulimit -t {seconds}; ulimit -f 16384; ulimit -c 0; exec \"$0\" -I -B program.py",
            self.limits.memory_mib * 1024
        );
        let mut command = if self.isolate {
            let mut command = Command::new(ISOLATE[0]);
            command.args(&ISOLATE[1..]).arg("sh");
            command
        } else {
            Command::new("sh")
        };
        command
            .arg("-c")
            .arg(limits)
            .arg(&self.python)
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(Failure::other)?;
        let stderr = child.stderr.take();
        // Read beside the program, so that a full pipe never stops it.
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stderr) = stderr {
                let _ = (&mut stderr).take(OUTPUT).read_to_end(&mut text);
                let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            }
            text
        });
        let ended = wait(&mut child, self.limits.wall);
        kill(&child);
        let _ = child.wait();
        let text = reader.join().unwrap_or_default();
        Ok(match ended {
            None => Ended::TimedOut,
            Some(true) => Ended::Passed,
            Some(false) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                Ended::Failed(
                    text.trim_end().lines().last().unwrap_or("no message").chars().take(300).collect(),
                )
            }
        })
    }
}

/// Whether the program ended well, if it ended in time.
fn wait(child: &mut Child, wall: Duration) -> Option<bool> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    while started.elapsed() < wall {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status.success());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    None
}

/// Ends the whole process group; in a namespace of its own nothing can leave it.
fn kill(child: &Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill")
        .args(["-KILL", "--", &group])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> Sandbox {
        let limits = Limits { wall: Duration::from_secs(3), memory_mib: 512 };
        Sandbox::new("python3", true, limits).unwrap()
    }

    #[test]
    fn programs_pass_fail_and_run_out_of_time() {
        let sandbox = sandbox();
        assert_eq!(sandbox.run("print('x' * 1000000)").unwrap(), Ended::Passed);
        assert_eq!(sandbox.run("raise ValueError(3)").unwrap(), Ended::Failed("ValueError: 3".into()));
        assert_eq!(sandbox.run("while True: pass").unwrap(), Ended::TimedOut);
    }

    #[test]
    fn a_python_that_is_not_there_is_said() {
        let limits = Limits { wall: Duration::from_secs(3), memory_mib: 512 };
        let failure = Sandbox::new("/no/python", true, limits).expect_err("no Python");
        let message = failure.message();
        assert!(message.starts_with("/no/python does not run an empty program ("), "{message}");
        assert!(message.ends_with("; give the path of a Python 3 with --python"), "{message}");
        assert!(!message.contains('"'), "{message}");
    }

    #[test]
    fn memory_is_limited_and_children_end_too() {
        let sandbox = sandbox();
        let Ended::Failed(message) = sandbox.run("x = bytearray(1 << 30)").unwrap() else { panic!() };
        assert!(message.contains("MemoryError"), "{message}");
        let marker = tempfile::NamedTempFile::new().unwrap();
        let path = marker.path().display();
        let program = format!(
            "import subprocess, time\nsubprocess.Popen(['sh', '-c', 'sleep 4; echo late > {path}'])\nraise SystemExit(0)"
        );
        assert_eq!(sandbox.run(&program).unwrap(), Ended::Passed);
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(std::fs::read_to_string(marker.path()).unwrap(), "");
    }
}
