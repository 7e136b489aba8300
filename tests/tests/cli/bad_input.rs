//! Wrong input: one clear sentence and the right exit code each.

use super::*;

#[test]
fn without_a_model_it_says_how_to_get_one() {
    for subcommand in ["chat", "tokenize", "score", "inspect", "plan"] {
        let mut command = run([subcommand]);
        fails(&mut command, 2, &["no model", "-m", "hf:Qwen/", "cchaha-run pull", "CCHAHA_ARG_MODEL"]);
    }
}

#[test]
fn unusable_model_files() {
    let dir = TempDir::new().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let whole = fs::read(stories()).expect("the model");
    let patched = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|window| window == from).expect("there to patch");
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    // A tensor's name, number of dimensions, dimensions, type: the type is 24 bytes behind the name of a matrix.
    let name = b"token_embd.weight";
    let mut typed = name.to_vec();
    let at = whole.windows(name.len()).position(|window| window == name).expect("the tensor");
    typed.extend_from_slice(&whole[at + name.len()..at + name.len() + 20]);
    typed.extend_from_slice(&9u32.to_le_bytes());
    let cases: [(PathBuf, &[&str]); 7] = [
        (dir.path().join("absent.gguf"), &["absent.gguf", "no such file"]),
        (dir.path().to_path_buf(), &["is a directory"]),
        (write("text.gguf", b"version https://git-lfs.github.com/spec/v1\n"), &["is not a GGUF file"]),
        (write("empty.gguf", b""), &["is empty", "download it again"]),
        (write("cut.gguf", &whole[..whole.len() / 2]), &["cut short", "download it again"]),
        (
            write("architecture.gguf", &patched(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0bloom")),
            &["bloom"],
        ),
        (write("quant.gguf", &patched(name, &typed)), &["token_embd.weight", "not supported"]),
    ];
    for (path, words) in cases {
        for subcommand in ["complete", "score"] {
            fails(run([subcommand, "-m"]).arg(&path).write_stdin("x"), 3, words);
        }
        for subcommand in ["tokenize", "plan", "bench"] {
            fails(run([subcommand, "-m"]).arg(&path).write_stdin("x"), 3, words);
        }
    }
}

#[test]
fn a_model_of_another_architecture_can_be_inspected() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("bloom.gguf");
    let mut bytes = fs::read(stories()).expect("the model");
    let at = bytes.windows(5).position(|window| window == b"llama").expect("the architecture");
    bytes[at..at + 5].copy_from_slice(b"bloom");
    fs::write(&path, bytes).expect("a file");
    let shown = stdout(run(["inspect"]).arg(&path));
    assert!(shown.contains("bloom") && shown.contains("token_embd.weight"));
}

#[test]
fn flags_out_of_range() {
    for (flags, words) in [
        ("-n 0", ["'0'", "1 or more"]),
        ("-n -1", ["'-1'", "1 or more"]),
        ("-t 0", ["--threads", "1 or more"]),
        ("-t -2", ["--threads", "1 or more"]),
        ("-c 0", ["--ctx", "1 or more"]),
        ("-c -5", ["--ctx", "1 or more"]),
        ("-b 0", ["--batch-size", "1 or more"]),
        ("-c 100000", ["100000", "512"]),
        ("-s -1", ["--seed", "0 or more"]),
        ("--temp -1", ["--temp", "0 or more"]),
        ("--top-k -1", ["--top-k", "0 or more"]),
        ("--top-p 1.5", ["--top-p", "from 0 to 1"]),
        ("--min-p nan", ["--min-p", "from 0 to 1"]),
        ("--typical -0.5", ["--typical", "from 0 to 1"]),
        ("--repeat-penalty 0", ["--repeat-penalty", "above 0"]),
        ("--repeat-last-n -2", ["--repeat-last-n", "-1"]),
        ("--dry-multiplier -1", ["--dry-multiplier", "0 or more"]),
        ("--dry-base 0.5", ["--dry-base", "1 or more"]),
        ("--frequency-penalty inf", ["--frequency-penalty", "a number"]),
        ("--logit-bias 5", ["--logit-bias", "198+2.5"]),
        ("--logit-bias 100000+1", ["100000", "512"]),
        ("--device tpu", ["'tpu'", "auto, cpu, gpu, oracle"]),
        ("--isa sse9", ["sse9", "avx2"]),
        ("--no-such-flag", ["--no-such-flag", "unexpected"]),
        ("--logprobs 2", ["--json", "required"]),
    ] {
        fails(stories_run("complete", flags).args(["-p", "Once"]), 2, &words);
    }
    fails(stories_run("bench", "-p 0 -n 0").arg("-v"), 2, &["nothing to measure"]);
    fails(&mut stories_run("bench", "-p 12,x"), 2, &["'x'"]);
    fails(&mut stories_run("bench", "-r 0"), 2, &["--repetitions"]);
    fails(&mut stories_run("bench", "-p 600 -n 0"), 2, &["600", "512"]);
    fails(&mut run(["no-such-command"]), 2, &["no-such-command"]);
}

#[test]
fn the_gpu_is_absent() {
    let mut run = stories_run("complete", "--device gpu");
    // The loader finds no driver, whatever the machine has.
    run.env("VK_DRIVER_FILES", "/dev/null").env("VK_ICD_FILENAMES", "/dev/null");
    fails(run.args(["-p", "Once"]), 5, &["graphics adapter", "--device cpu"]);
}

#[test]
fn a_prompt_has_one_source() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("prompt.txt");
    fs::write(&file, "Once upon a time").expect("a file");
    let both = |subcommand| {
        let mut command = stories_run(subcommand, "-p x --file");
        command.arg(&file);
        command
    };
    fails(&mut both("complete"), 2, &["--prompt", "--file", "cannot be used with"]);
    fails(&mut both("tokenize"), 2, &["--prompt", "--file", "cannot be used with"]);
    fails(stories_run("complete", "--file").arg(dir.path().join("absent")), 2, &["cannot read", "absent"]);
    fails(stories_run("complete", "--file").arg(dir.path()), 2, &["cannot read"]);

    let flags = "--temp 0 -n 12";
    let expected = stdout(stories_run("complete", flags).args(["-p", "Once upon a time"]));
    assert!(!expected.is_empty());
    assert_eq!(stdout(stories_run("complete", flags).arg("--file").arg(&file)), expected);
    assert_eq!(stdout(stories_run("complete", flags).write_stdin("Once upon a time")), expected);
    assert_eq!(
        stdout(stories_run("complete", flags).args(["--file", "-"]).write_stdin("Once upon a time")),
        expected
    );
}

#[test]
fn input_that_is_not_utf8() {
    let bad = b"fine \xff not".as_slice();
    let words = ["UTF-8", "0xff", "offset 5"];
    for subcommand in ["complete", "tokenize", "score"] {
        fails(stories_run(subcommand, "").write_stdin(bad), 2, &words);
    }
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("latin1.txt");
    fs::write(&file, bad).expect("a file");
    fails(stories_run("complete", "--file").arg(&file), 2, &["latin1.txt", "UTF-8", "offset 5"]);
    // In a chat, the offset counts from the start of stdin too.
    let template = template(dir.path());
    let mut chat = stories_run("chat", "-n 2 --chat-template");
    let assert = chat.arg(&template).write_stdin(b"\nab\nc\xfe\n".as_slice()).assert().code(2);
    assert.stderr(contains("0xfe").and(contains("offset 5")));
}

#[test]
fn a_prompt_longer_than_the_context() {
    let long = "Once upon a time ".repeat(200);
    fails(stories_run("complete", "").write_stdin(long.as_str()), 2, &["prompt", "512", "shorten"]);
    fails(stories_run("complete", "-c 64").write_stdin(long.as_str()), 2, &["64", "--ctx"]);
}

#[test]
fn the_environment_sets_flags() {
    let tokens = |command: &mut Command| json(command)["tokens"].clone();
    let expected = tokens(stories_run("tokenize", "--json").args(["-p", "Once"]));
    let mut command = run(["tokenize", "-p", "Once"]);
    assert_eq!(tokens(command.env("CCHAHA_ARG_MODEL", stories()).env("CCHAHA_ARG_JSON", "1")), expected);
    // The command line wins, and an empty variable is none.
    let mut command = stories_run("tokenize", "--json -p Once");
    assert_eq!(tokens(command.env("CCHAHA_ARG_MODEL", "/absent").env("CCHAHA_ARG_FILE", "")), expected);
    let mut command = stories_run("complete", "-p Once");
    command.env("CCHAHA_ARG_N_PREDICT", "none");
    fails(&mut command, 2, &["'none'", "Set in the environment", "CCHAHA_ARG_N_PREDICT"]);
    let mut command = stories_run("tokenize", "-p Once");
    assert!(!stdout(command.env("CCHAHA_ARG_JSON", "off")).starts_with('{'));
}
