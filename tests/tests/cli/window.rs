//! Code structure and code windows on the command line.

use super::*;

const SOURCE: &str =
    "import os\n\n# a list\nclass Shop:\n    def open(self):\n        return self.doors\n\n\nprint(Shop())\n";

#[test]
fn structure_prints_every_line() {
    let json = json(run(["structure", "--json", "--language", "python", "-"]).write_stdin(SOURCE));
    let lines = json["lines"].as_array().expect("a list");
    assert_eq!(lines.len(), SOURCE.lines().count());
    let line = |kind: &str, depth: u32, scope: &str, pinned: bool, number: u32| serde_json::json!({ "line": number, "kind": kind, "depth": depth, "scope": scope, "pinned": pinned });
    assert_eq!(lines[0], line("import", 0, "", true, 1));
    assert_eq!(lines[1], line("blank", 0, "", false, 2));
    assert_eq!(lines[2], line("comment", 0, "", false, 3));
    assert_eq!(lines[4], line("header", 1, "Shop", true, 5));
    assert_eq!(lines[5], line("body", 2, "Shop.open", false, 6));

    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("shop.py");
    fs::write(&path, SOURCE).expect("a file");
    let text = |flag: &str| stdout(run(["structure"]).args(flag.split_whitespace()).arg(&path));
    assert_eq!(text("").lines().count(), lines.len());
    assert!(text("").contains("header   1* "), "{}", text(""));
    assert!(!text("").contains('\x1b'), "no colours where nobody looks");
    // Blank lines belong to nobody: the scanner cannot know yet that a scope has ended.
    let spoken = |text: String| {
        text.lines().filter(|line| !line.contains("blank")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(spoken(text("")), spoken(text("--causal")), "the scanner sees the same");
    assert!(text("").contains("return self.doors  Shop.open\n"), "{}", text(""));
    fails(&mut run(["structure", "nowhere.py"]), 2, &["nowhere.py"]);
    // Without a name the text tells its language.
    let mut piped = run(["structure", "-"]);
    piped.write_stdin(SOURCE).assert().success().stderr(is_empty());
    assert_eq!(stdout(&mut piped), text(""));
    let unknown = dir.path().join("shop.kt");
    fs::write(&unknown, "class Shop {\n    fun open() {\n        doors()\n    }\n}\n").expect("a file");
    let assert = run(["structure"]).arg(&unknown).assert().success().stderr(contains("language not known"));
    let shown = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(shown.contains("doors()  Shop.open\n"), "{shown}");
}

#[test]
fn budgets_say_what_they_hide_and_draw_it() {
    let dir = TempDir::new().expect("a folder");
    let (file, picture) = (dir.path().join("long.py"), dir.path().join("window.svg"));
    fs::write(&file, SOURCE.repeat(3)).expect("a file");
    let with = |flags: &str| {
        let mut command = stories_run("complete", &format!("--temp 0 -n 4 {flags}"));
        command.arg("--file").arg(&file);
        command
    };
    let whole = stdout(&mut with(""));
    assert_eq!(stdout(&mut with("--kv-policy full")), whole);
    assert_eq!(stdout(&mut with("--kv-budget 100000")), whole);
    with("").assert().success().stderr(is_empty());
    for (policy, word) in [("structure", "nothing is dropped"), ("window", "not seen"), ("fold", "folded")] {
        let output = with(&format!("--kv-budget 64 --kv-policy {policy}")).assert().success();
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.starts_with("code window: of ") && stderr.contains(word), "{policy}: {stderr}");
        assert!(stderr.contains(&format!("({policy})")), "{policy}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{policy}: {stderr}");
    }
    let explained =
        with(&format!("--kv-budget 64 --explain-window {}", picture.display())).assert().success();
    let stderr = String::from_utf8_lossy(&explained.get_output().stderr).into_owned();
    assert!(stderr.contains("always seen"), "{stderr}");
    assert!(fs::read_to_string(&picture).expect("a picture").starts_with("<svg"));
    // Without a budget everything is seen, and every line has its row.
    let explained = with(&format!("--device cpu --explain-window {}", picture.display())).assert().success();
    let stderr = String::from_utf8_lossy(&explained.get_output().stderr).into_owned();
    assert!(
        stderr.starts_with("all ") && stderr.ends_with(" tokens are seen (no code window)\n"),
        "{stderr}"
    );
    let drawn = fs::read_to_string(&picture).expect("a picture");
    assert!(drawn.contains(">class Shop:<") && drawn.contains(">27</text>"), "{drawn}");
    // A policy alone does nothing here, and says so.
    with("--kv-policy fold").assert().success().stderr(contains("--kv-policy fold has no effect"));

    let bits = |flags: &str| {
        let mut command = stories_run("score", &format!("--json {flags}"));
        command.arg("-f").arg(&file);
        json(&mut command)["bits_per_byte"].as_f64().expect("a number")
    };
    assert_eq!(bits(""), bits("--kv-policy full"));
    assert_ne!(bits(""), bits("--kv-policy window --kv-budget 64"));
}

#[test]
fn windows_that_cannot_be_are_refused() {
    for budget in ["0", "1", "10"] {
        fails(&mut stories_run("complete", &format!("-p x --kv-budget {budget}")), 2, &["64 or more"]);
    }
    for command in ["complete", "chat", "score", "bench"] {
        let words = ["--kv-policy full", "leave --kv-budget out"];
        fails(&mut stories_run(command, "--kv-budget 64 --kv-policy full"), 2, &words);
    }
    fails(&mut stories_run("bench", "--explain-window"), 2, &["--explain-window"]);
    for command in ["complete", "chat", "score"] {
        let mut run = stories_run(command, "--explain-window /nowhere/x.svg");
        fails(run.write_stdin("Once upon a time"), 2, &["cannot write /nowhere/x.svg"]);
    }
    stories_run("complete", "-p x --kv-policy all").assert().code(2);
    fails(&mut stories_run("complete", "-p x --ctx 1024"), 2, &["512", "--rope"]);
    stories_run("complete", "-p x -n 2 --ctx 1024 --rope yarn").assert().success();
}
