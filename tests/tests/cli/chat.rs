//! Conversations without a terminal.

use super::*;

#[test]
fn chat_answers_line_by_line() {
    let dir = TempDir::new().expect("a folder");
    let template = template(dir.path());
    let chat = |stdin: &str| {
        let mut command = stories_run("chat", "--temp 0 -n 6 --chat-template");
        command.arg(&template).current_dir(dir.path()).write_stdin(stdin);
        command
    };
    fails(stories_run("chat", "").write_stdin("hello\n"), 3, &["chat template", "--chat-template"]);
    let one = stdout(&mut chat("Once upon a time\n"));
    assert!(one.ends_with('\n') && one.len() > 5, "{one:?}");
    let again = stdout(&mut chat("Once upon a time\n\n/clear\nOnce upon a time\n/regen\n/exit\nunread\n"));
    assert_eq!(again, one.repeat(3));
    // Commands say what they say on stderr; a system message changes the answer.
    chat("/help\n/stats\n")
        .assert()
        .success()
        .stdout(is_empty())
        .stderr(contains("/system").and(contains("512")));
    let led = stdout(&mut chat("/system The dragon was very angry and hot.\nOnce upon a time\n"));
    assert_ne!(led, one);
    fails(&mut chat("/nonsense\n"), 2, &["/nonsense", "/help"]);
    // A block and continued lines are one message each.
    let block = stdout(&mut chat("Once\\\nupon\n"));
    assert_eq!(stdout(&mut chat("\"\"\"\nOnce\nupon\n\"\"\"\n")), block);
    assert_eq!(stdout(&mut chat("\"\"\"\nOnce\nupon\n")), block, "the end of stdin ends a block");
    // At the end it shows what of the conversation is seen.
    stdout(chat("Once upon a time\n").args(["--explain-window", "window.svg"]));
    let drawn = fs::read_to_string(dir.path().join("window.svg")).expect("a picture");
    assert!(drawn.contains("u: Once upon a time"), "{drawn}");
    // What is saved can be loaded.
    stdout(&mut chat("Once upon a time\n/save chat.json\n"));
    let saved: Value =
        serde_json::from_slice(&fs::read(dir.path().join("chat.json")).expect("saved")).expect("JSON");
    assert_eq!(saved[0], serde_json::json!({ "role": "user", "content": "Once upon a time" }));
    assert_eq!(saved[1]["content"].as_str(), one.strip_suffix('\n'));
    assert_eq!(stdout(&mut chat("/load chat.json\n/regen\n")), one);
    fails(&mut chat("/load absent.json\n"), 2, &["absent.json"]);
}

#[test]
fn a_conversation_longer_than_the_context_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let template = template(dir.path());
    let mut command = stories_run("chat", "-c 32 --chat-template");
    command.arg(&template).write_stdin(format!("{}\n", "Once upon a time ".repeat(20)));
    command.assert().code(2).stderr(contains("32"));
}
