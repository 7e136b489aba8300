//! Models by name, from a hub on this machine that cuts connections, sends wrong bytes and lengths, redirects, and is
//! closed or busy.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use cchaha_tests::program;
use serde_json::{Value, json};
use server::{Fault, Server};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LISTING: &str = "/api/models/some/model-GGUF/revision/main?blobs=true";
const FILE: &str = "model-q4_k_m.gguf";
const NAME: &str = "hf:some/model-GGUF";

/// A hub with one repository, and a cache of its own.
struct Hub {
    server: Server,
    home: TempDir,
}

fn model_bytes() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/llama.gguf");
    fs::read(path).expect("a golden file")
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn place(file: &str) -> String {
    format!("/some/model-GGUF/resolve/{COMMIT}/{file}")
}

impl Hub {
    fn new(files: &[(&str, &[u8])]) -> Hub {
        let hub = Hub { server: Server::start(), home: TempDir::new().expect("a folder") };
        let sibling = |(name, bytes): &(&str, &[u8])| {
            hub.server.serve(&place(name), bytes);
            json!({"rfilename": name, "size": bytes.len(), "blobId": "x", "lfs": {"sha256": hash(bytes), "size": bytes.len()}})
        };
        let mut siblings: Vec<Value> = files.iter().map(sibling).collect();
        siblings.push(json!({"rfilename": "README.md", "size": 10, "blobId": "y"}));
        hub.list(&json!({"id": "some/model-GGUF", "sha": COMMIT, "siblings": siblings}));
        hub
    }

    /// With the one model most tests are about.
    fn with_model() -> Hub {
        Hub::new(&[(FILE, &model_bytes())])
    }

    fn list(&self, listing: &Value) {
        self.server.serve(LISTING, listing.to_string().as_bytes());
    }

    fn run_with(&self, arguments: &[&str], set: &[(&str, &str)]) -> Output {
        let mut command = std::process::Command::new(program("cchaha-run"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CCHAHA_ARG_")
                || name.starts_with("HF_")
                || name.to_ascii_lowercase().ends_with("_proxy")
            {
                command.env_remove(&*name);
            }
        }
        command.args(arguments).env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.server.address);
        command.envs(set.iter().copied()).stdin(std::process::Stdio::null()).output().expect("it runs")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    fn blobs(&self) -> PathBuf {
        self.home.path().join("hub/models--some--model-GGUF/blobs")
    }

    /// That the model is in the cache as it is on the hub, under the path that was printed.
    fn arrived(&self, output: &Output) {
        assert!(output.status.success(), "{}", stderr(output));
        let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let snapshot =
            self.home.path().join("hub/models--some--model-GGUF/snapshots").join(COMMIT).join(FILE);
        assert_eq!(path, snapshot);
        assert!(fs::read(&path).expect("the model") == model_bytes(), "the model differs");
        assert!(fs::read(self.blobs().join(hash(&model_bytes()))).expect("the blob") == model_bytes());
        let left: Vec<_> =
            fs::read_dir(self.blobs()).expect("blobs").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    /// That it failed with this exit code and says so, and that nothing looks as if it had arrived.
    fn failed(&self, output: &Output, code: i32, words: &[&str]) {
        let text = stderr(output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        for word in words {
            assert!(text.contains(word), "{text:?} does not say {word:?}");
        }
        assert!(output.stdout.is_empty());
        assert!(!text.contains("panicked"), "{text}");
        assert!(!self.home.path().join("hub/models--some--model-GGUF/snapshots").exists());
    }

    /// First bytes asked for, request by request.
    fn starts(&self) -> Vec<Option<usize>> {
        self.server.requests(&place(FILE)).into_iter().map(|request| request.start).collect()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_model_is_pulled_listed_run_and_removed() {
    let hub = Hub::with_model();
    hub.arrived(&hub.run(&["pull", NAME]));
    assert_eq!(hub.starts(), [None]);
    // Again: the hub is asked what there is, and nothing is sent twice.
    hub.arrived(&hub.run(&["pull", "some/model-GGUF:Q4_K_M"]));
    assert_eq!(hub.starts(), []);
    assert_eq!(hub.server.requests(LISTING).len(), 2);

    let listed = hub.run(&["list", "--json"]);
    let row: Value = serde_json::from_slice(&listed.stdout).expect("one row");
    assert_eq!(row["model"], format!("{NAME}:{FILE}"));
    assert_eq!(row["bytes"], model_bytes().len());

    // What is in the cache runs without a network.
    let offline = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    for model in [NAME.to_owned(), format!("{NAME}:q4_k_m"), format!("{NAME}:{FILE}")] {
        let shown = hub.run_with(&["tokenize", "-m", &model, "-p", "the"], &offline);
        assert!(shown.status.success(), "{}", stderr(&shown));
    }
    let removed = hub.run(&["rm", NAME]);
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert!(!hub.home.path().join("hub/models--some--model-GGUF").exists());
    hub.failed(&hub.run(&["rm", NAME]), 3, &["is not in the cache"]);
}

#[test]
fn a_model_named_in_a_flag_is_fetched() {
    let hub = Hub::with_model();
    let shown = hub.run(&["tokenize", "-m", NAME, "-p", "the"]);
    assert!(shown.status.success(), "{}", stderr(&shown));
    assert_eq!(hub.starts(), [None]);
}

#[test]
fn cut_connections_are_resumed_where_they_ended() {
    let hub = Hub::with_model();
    hub.server.fail(&place(FILE), [Fault::Cut(1000), Fault::Cut(100_000), Fault::Cut(1)]);
    hub.arrived(&hub.run(&["pull", NAME]));
    assert_eq!(hub.starts(), [None, Some(1000), Some(101_000), Some(101_001)]);
}

#[test]
fn what_arrived_is_kept_for_the_next_run() {
    let hub = Hub::with_model();
    let none = vec![Fault::Cut(0); 5];
    hub.server.fail(&place(FILE), [vec![Fault::Cut(5000)], none].concat());
    let output = hub.run(&["pull", NAME]);
    hub.failed(&output, 1, &[FILE, "5 times without a byte", "kept"]);
    hub.starts();
    hub.arrived(&hub.run(&["pull", NAME]));
    assert_eq!(hub.starts(), [Some(5000)]);
}

#[test]
fn two_programs_at_once_fetch_it_once() {
    let hub = Hub::with_model();
    let outputs = std::thread::scope(|scope| {
        let pulls = [(); 3].map(|()| scope.spawn(|| hub.run(&["pull", NAME])));
        pulls.map(|pull| pull.join().expect("no panic"))
    });
    outputs.iter().for_each(|output| hub.arrived(output));
    assert_eq!(hub.starts(), [None]);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let hub = Hub::with_model();
    hub.server.fail(&place(FILE), [Fault::Cut(7000), Fault::NoRange]);
    hub.arrived(&hub.run(&["pull", NAME]));
    assert_eq!(hub.starts(), [None, Some(7000)]);
}

#[test]
fn leftovers_of_another_file_are_found_out() {
    let model = model_bytes();
    for leftover in [vec![7; 9000], vec![7; model.len()], vec![7; model.len() + 1]] {
        let hub = Hub::with_model();
        fs::create_dir_all(hub.blobs()).expect("a folder");
        fs::write(hub.blobs().join(format!("{}.part", hash(&model))), leftover).expect("a leftover");
        hub.arrived(&hub.run(&["pull", NAME]));
    }
}

#[test]
fn wrong_bytes_are_found_out() {
    let hub = Hub::with_model();
    hub.server.fail(&place(FILE), [Fault::WrongByte]);
    let output = hub.run(&["pull", NAME]);
    assert!(stderr(&output).contains("once more"), "{}", stderr(&output));
    hub.arrived(&output);

    let hub = Hub::with_model();
    hub.server.fail(&place(FILE), [Fault::WrongByte, Fault::WrongByte]);
    hub.failed(&hub.run(&["pull", NAME]), 1, &[FILE, "with the hash", &hash(&model_bytes()), "2 times"]);
}

#[test]
fn wrong_lengths_are_found_out() {
    let hub = Hub::with_model();
    hub.server.fail(&place(FILE), [Fault::WrongLength(-1000)]);
    hub.arrived(&hub.run(&["pull", NAME]));

    let hub = Hub::with_model();
    hub.server.fail(&place(FILE), [Fault::WrongLength(1)]);
    hub.failed(&hub.run(&["pull", NAME]), 1, &[FILE, "longer than"]);
}

#[test]
fn redirects_are_followed_and_the_token_stays_at_home() {
    let hub = Hub::with_model();
    let store = Server::start();
    store.serve("/data?signature=1", &model_bytes());
    let to = format!("{}/data?signature=1", store.address);
    store.fail("/data?signature=1", [Fault::Cut(3000)]);
    hub.server.fail(&place(FILE), [Fault::Redirect(to.clone()), Fault::Redirect(to)]);
    hub.arrived(&hub.run_with(&["pull", NAME], &[("HF_TOKEN", "hf_secret")]));
    assert!(hub.server.requests(LISTING).iter().all(|request| request.token.as_deref() == Some("hf_secret")));
    let asked = store.requests("/data?signature=1");
    assert_eq!(asked.iter().map(|request| request.start).collect::<Vec<_>>(), [None, Some(3000)]);
    assert!(asked.iter().all(|request| request.token.is_none()), "{asked:?}");

    // To another place of the hub it goes along.
    let hub = Hub::with_model();
    hub.server.serve("/moved", &model_bytes());
    hub.server.fail(&place(FILE), [Fault::Redirect("/moved".to_owned())]);
    hub.arrived(&hub.run_with(&["pull", NAME], &[("HF_TOKEN", "hf_secret")]));
    assert_eq!(hub.server.requests("/moved")[0].token.as_deref(), Some("hf_secret"));

    let hub = Hub::with_model();
    hub.server
        .fail(&place(FILE), vec![Fault::Redirect(format!("{}{}", hub.server.address, place(FILE))); 50]);
    let output = hub.run(&["pull", NAME]);
    hub.failed(&output, 1, &["redirect"]);
}

#[test]
fn closed_doors_are_explained() {
    for (status, words) in [
        (401, ["not public", "HF_TOKEN"]),
        (403, ["not public", "HF_TOKEN"]),
        (404, ["no such model", "some/model-GGUF"]),
    ] {
        for path in [LISTING.to_owned(), place(FILE)] {
            let hub = Hub::with_model();
            hub.server.fail(&path, [Fault::Status(status, "")]);
            hub.failed(&hub.run(&["pull", NAME]), 3, &words);
        }
    }
    let hub = Hub::with_model();
    hub.server.fail(LISTING, [Fault::Status(403, "")]);
    let output = hub.run_with(&["pull", NAME], &[("HF_TOKEN", "hf_secret")]);
    hub.failed(&output, 3, &["not open to the token in use"]);
    assert!(!stderr(&output).contains("hf_secret"));
}

#[test]
fn busy_servers_are_asked_again() {
    let hub = Hub::with_model();
    hub.server.fail(LISTING, [Fault::Status(429, "Retry-After: 0\r\n"), Fault::Status(503, "")]);
    hub.server.fail(
        &place(FILE),
        [Fault::Status(503, "Retry-After: 0\r\n"), Fault::Cut(10), Fault::Status(500, "")],
    );
    hub.arrived(&hub.run(&["pull", NAME]));
    assert_eq!(hub.starts(), [None, None, Some(10), Some(10)]);

    let hub = Hub::with_model();
    hub.server.fail(LISTING, vec![Fault::Status(503, "Retry-After: 0\r\n"); 5]);
    hub.failed(&hub.run(&["pull", NAME]), 1, &["503", "5 times"]);
    let nobody = hub.run_with(&["pull", NAME], &[("HF_ENDPOINT", "http://127.0.0.1:9")]);
    hub.failed(&nobody, 1, &["127.0.0.1:9", "5 times"]);
}

#[test]
fn split_models_come_whole() {
    let names = ["m-q8_0-00001-of-00003.gguf", "m-q8_0-00002-of-00003.gguf", "m-q8_0-00003-of-00003.gguf"];
    let hub = Hub::new(&[(names[0], b"one"), (names[1], b"two"), (names[2], b"three"), (FILE, b"another")]);
    let output = hub.run(&["pull", "some/model-GGUF:Q8_0"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let first = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let folder = first.parent().expect("a folder");
    let found = names.map(|name| fs::read(folder.join(name)).expect("a part"));
    assert_eq!(found, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    assert!(!folder.join(FILE).exists());
    let listed = String::from_utf8_lossy(&hub.run(&["list"]).stdout).into_owned();
    assert!(names.iter().all(|name| listed.contains(name)), "{listed}");

    // A second model shares the folder; removing one leaves the other.
    assert!(hub.run(&["pull", "some/model-GGUF:Q4_K_M"]).status.success());
    assert!(hub.run(&["rm", "hf:some/model-GGUF:Q8_0"]).status.success());
    assert!(!first.exists() && folder.join(FILE).exists());
    assert_eq!(fs::read_dir(hub.blobs()).expect("blobs").count(), 1);
    hub.server.serve(LISTING, b"{}");
    assert!(hub.run(&["tokenize", "-m", "hf:some/model-GGUF:Q8_0", "-p", "x"]).status.code() != Some(0));
}

#[test]
fn lists_that_lie_are_refused() {
    let good = hash(b"x");
    let file = |name: &str, hash: &str| json!({"rfilename": name, "lfs": {"sha256": hash, "size": 1}});
    for listing in [
        json!({"sha": "../../..", "siblings": [file(FILE, &good)]}),
        json!({"sha": COMMIT, "siblings": [file("../../evil.gguf", &good)]}),
        json!({"sha": COMMIT, "siblings": [file("/etc/evil.gguf", &good)]}),
        json!({"sha": COMMIT, "siblings": [file("C:\\evil.gguf", &good)]}),
        json!({"sha": COMMIT, "siblings": [file(FILE, "../../../../evil")]}),
        json!({"sha": COMMIT, "siblings": 7}),
        json!([]),
    ] {
        let hub = Hub::with_model();
        hub.list(&listing);
        hub.failed(&hub.run(&["pull", NAME]), 1, &["the list of files"]);
        assert!(!hub.home.path().join("hub").exists());
    }
    for (siblings, words) in [
        (json!([]), "no GGUF file"),
        (json!([file("a-q2_k.gguf", &good), file("b-q3_k.gguf", &good)]), "several models"),
    ] {
        let hub = Hub::with_model();
        hub.list(&json!({"sha": COMMIT, "siblings": siblings}));
        hub.failed(&hub.run(&["pull", NAME]), 3, &[words]);
    }
    let hub = Hub::with_model();
    for name in ["hf:../..", "nonsense", "hf:a/b/c"] {
        hub.failed(&hub.run(&["pull", name]), 2, &["is no model on the hub"]);
    }
}

#[test]
fn known_models_are_listed() {
    let hub = Hub::with_model();
    let output = hub.run(&["pull"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["qwen2.5-coder-0.5b", "468.6 MiB", "Apache-2.0", "memory at"] {
        assert!(text.contains(word), "{text}");
    }
}
