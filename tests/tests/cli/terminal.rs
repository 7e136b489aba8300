//! What shells, pipes and terminals see: help, completions, colours, closed pipes, Ctrl-C.

use super::*;

#[test]
fn help_has_examples() {
    for subcommand in [
        "complete",
        "chat",
        "fim",
        "tokenize",
        "score",
        "inspect",
        "plan",
        "kernels",
        "bench",
        "completions",
        "man",
    ] {
        let help = stdout(&mut run([subcommand, "--help"]));
        assert!(help.contains("Examples:") && help.contains(&format!("cchaha-run {subcommand}")), "{help}");
    }
    let help = stdout(&mut run(["--help"]));
    assert!(help.contains("CCHAHA_ARG_") && help.contains("130"), "{help}");
    run(["--version"]).assert().success().stdout(contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&mut run(["completions", shell]));
        assert!(script.contains("tokenize") && script.contains("repeat-penalty"), "{shell}");
    }
    assert!(stdout(&mut run(["man"])).starts_with(".ie"));
    let dir = TempDir::new().expect("a folder");
    run(["man", "--out-dir"]).arg(dir.path()).assert().success();
    let page = fs::read_to_string(dir.path().join("cchaha-run-complete.1")).expect("a page per subcommand");
    assert!(page.contains("frequency") && page.contains("Examples"));
    fails(run(["man", "--out-dir"]).arg(dir.path().join("absent")), 1, &["absent"]);
}

#[cfg(unix)]
#[test]
fn bash_completes_values_of_flags() {
    let dir = TempDir::new().expect("a folder");
    let script = dir.path().join("completions.bash");
    let ask = "\nCOMP_WORDS=(cchaha-run complete --device '')\nCOMP_CWORD=3\n_cchaha__run cchaha-run '' --device\n\
               echo \"${COMPREPLY[@]}\"\n";
    // Without programmable completion, as in scripts, bash knows no `complete`.
    let head = "complete() { :; }\n";
    fs::write(&script, format!("{head}{}{ask}", stdout(&mut run(["completions", "bash"])))).expect("a file");
    Command::new("bash").arg("--norc").arg(&script).assert().success().stdout("auto cpu gpu oracle\n");
}

#[test]
fn no_escape_codes_where_nobody_sees_colours() {
    let output = stories_run("complete", "-v -n 4 -p Once").assert().success().get_output().clone();
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("t/s") && stderr.contains("KV cache"), "-v says more: {stderr}");
    let quiet = stories_run("complete", "-n 4 -p Once").assert().success().get_output().stderr.clone();
    assert!(quiet.is_empty(), "{}", String::from_utf8_lossy(&quiet));
    stories_run("complete", "-n 4 -p Once")
        .env("RUST_LOG", "info")
        .assert()
        .success()
        .stderr(contains("KV cache"));
}

fn spawn(args: &str) -> Child {
    let mut command = command();
    let mut words = args.split_whitespace();
    command.arg(words.next().expect("a subcommand")).arg("-m").arg(stories()).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = spawn("complete -p Once -n 500 --ignore-eos --device oracle");
    let mut first = [0; 4];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("some text");
    // The pipe is closed now.
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let mut child = spawn("inspect --full");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = command();
    command.arg("tokenize").arg("-m").arg(stories()).args(["-p", "Once"]);
    let output = command.stdout(full).stderr(Stdio::piped()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cannot write to stdout"));
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_was_written() {
    let mut child = spawn("complete -p Once -n 500 --ignore-eos --device oracle");
    let mut out = child.stdout.take().expect("a pipe");
    let mut first = [0; 4];
    out.read_exact(&mut first).expect("some text");
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    // With --json the object comes all the same, and says so.
    let mut child = spawn("complete -p Once -n 500 --ignore-eos --device oracle --json -v");
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let loaded = stderr.lines().next().expect("a line about the model").expect("UTF-8");
    assert!(loaded.contains("KV cache"), "{loaded}");
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    let json: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(json["finish_reason"], "interrupted");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_work_without_a_partial_result() {
    let mut command = command();
    command.args(["score", "--device", "oracle", "-v", "-m"]).arg(stories());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let text = "Once upon a time there was a little dog. ".repeat(100);
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
}
