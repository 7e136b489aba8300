//! The layer rules of ARCHITECTURE.md, enforced:
//! `plan <- {gguf, kernels, shaders} <- engine <- tools`, the GPU API only in `shaders`, model files that know only
//! plans and metadata, `unsafe` only in the files named here, and files that can be read in one sitting.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every crate of the workspace: its folder, its package, and the packages of the workspace it may use.
const CRATES: [(&str, &str, &[&str]); 12] = [
    ("engine/plan", "cchaha-plan", &[]),
    ("engine/gguf", "cchaha-gguf", &["cchaha-plan"]),
    ("kernels", "cchaha-kernels", &["cchaha-plan"]),
    ("shaders", "cchaha-shaders", &["cchaha-plan"]),
    ("engine", "cchaha", &["cchaha-plan", "cchaha-gguf", "cchaha-kernels", "cchaha-shaders"]),
    ("tools/common", "cchaha-cli", &["cchaha"]),
    ("tools/eval", "cchaha-eval", &["cchaha", "cchaha-cli"]),
    ("tools/quantize", "cchaha-quantize", &["cchaha", "cchaha-cli"]),
    ("tools/run", "cchaha-run", &["cchaha", "cchaha-cli"]),
    ("tools/train", "cchaha-train", &["cchaha", "cchaha-cli"]),
    (
        "benches",
        "cchaha-benches",
        &["cchaha-plan", "cchaha-gguf", "cchaha-kernels", "cchaha-shaders", "cchaha"],
    ),
    ("tests", "cchaha-tests", &["cchaha-plan", "cchaha-gguf", "cchaha-kernels", "cchaha-shaders", "cchaha"]),
];

/// Where `unsafe` may be written: a file, or a folder with a slash at its end.
const UNSAFE: [&str; 6] = [
    "engine/gguf/src/map.rs",
    "engine/gguf/tests/hostile.rs", // counts allocations, which takes a global allocator
    "kernels/src/aarch64/",
    "kernels/src/x86_64/",
    "kernels/src/pool.rs",
    "shaders/src/device.rs",
];

/// What files in `engine/src/models/` may name: plans, metadata, and what turns the one into the other.
const MODEL_CRATES: [&str; 2] = ["cchaha_plan", "cchaha_gguf"];
const MODEL_MODULES: [&str; 3] = ["error", "models", "rope"];

const MAX_LINES: usize = 900;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' folder lies in the workspace")
        .to_owned()
}

/// Every file below the root whose name ends in one of `endings`: its path with forward slashes, and its text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    walk(&path, found);
                }
            } else {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let relative = |path: &Path| {
        let parts: Vec<_> =
            path.strip_prefix(&root).unwrap().iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    };
    paths
        .iter()
        .filter(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)))
        .map(|path| (relative(path), String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()))
        .collect()
}

fn rust_files() -> Vec<(String, String)> {
    let found = files(&[".rs"]);
    assert!(found.len() > 50, "only {} Rust files: the walk is broken", found.len());
    found
}

/// Rust source without comments and without what stands in strings and character literals.
fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(end) = raw_string(rest).filter(|_| !code.ends_with(|c: char| c.is_alphanumeric()))
        {
            end
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skip..];
    }
    code
}

/// Length of the (nesting) block comment `text` begins with.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text.as_bytes()[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text.as_bytes()[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Length of the raw string `text` begins with, if it does.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let body = after.trim_start_matches('#');
    let closing = format!("\"{}", "#".repeat(after.len() - body.len()));
    let content = body.strip_prefix('"')?;
    Some(text.len() - content.len() + content.find(&closing)? + closing.len())
}

/// Length of the literal in `quote`s that `text` begins with.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether the `'` that `text` begins with opens a character and not a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => true,
        (_, second) => second == Some('\''),
    }
}

/// The identifiers of some code, in order.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The names under the `dependencies` tables (all kinds) of a Cargo.toml.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies");
            // [dependencies.name]
            names.extend(table.rsplit_once("dependencies.").map(|(_, name)| name));
        } else if inside && !line.starts_with('#') {
            names.extend(line.split(['=', '.', ' ']).next().filter(|name| !name.is_empty()));
        }
    }
    names
}

#[test]
fn the_scanner_sees_code_and_only_code() {
    let source = "let a = \"unsafe \\\" unsafe\"; // unsafe\n/* unsafe /* x */ unsafe */ \
                  r#\"unsafe \" unsafe\"# 'x' '\\'' '\"' &'a str unsafe_code; br\"unsafe\" unsafe { b }";
    let code = code(source);
    // The second `a` is a lifetime.
    assert_eq!(words(&code).collect::<Vec<_>>(), ["let", "a", "a", "str", "unsafe_code", "unsafe", "b"]);
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n\
                    [target.'cfg(unix)'.dev-dependencies]\nc = { path = \"c\" }\n[dependencies.d]\nversion = \"1\"\n[lints]\ne = 1\n";
    assert_eq!(dependencies(manifest).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
}

#[test]
fn crates_depend_only_downwards() {
    let root = root();
    for (folder, package, allowed) in CRATES {
        let manifest = std::fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{package}\"")), "{folder} is not {package}");
        for name in dependencies(&manifest) {
            let ours = CRATES.iter().any(|(_, package, _)| *package == name);
            assert!(!ours || allowed.contains(&name), "{package} must not depend on {name}");
            assert!(package != "cchaha-plan", "cchaha-plan depends on nothing, not on {name}");
            assert!(name != "wgpu" || folder == "shaders", "{package} must not depend on wgpu");
        }
    }
    let members: BTreeSet<_> = files(&["Cargo.toml"]).into_iter().map(|(path, _)| path).collect();
    let mut known: BTreeSet<_> = CRATES.iter().map(|(folder, ..)| format!("{folder}/Cargo.toml")).collect();
    known.insert("Cargo.toml".into());
    assert_eq!(members, known, "a crate is missing in this test's table");
}

#[test]
fn the_gpu_api_stays_in_shaders() {
    for (path, source) in rust_files() {
        let found = words(&code(&source)).any(|word| word == "wgpu");
        assert!(!found || path.starts_with("shaders/"), "{path} names wgpu");
    }
}

#[test]
fn model_files_know_only_plans_and_metadata() {
    let models = rust_files().into_iter().filter(|(path, _)| path.starts_with("engine/src/models/"));
    let mut seen = 0;
    for (path, source) in models {
        seen += 1;
        let code = code(&source);
        for name in words(&code).filter(|word| word.starts_with("cchaha_")) {
            assert!(MODEL_CRATES.contains(&name), "{path} names {name}");
        }
        for after in code.split("crate::").skip(1) {
            // `crate::{a, b}` would hide what it names from this test.
            let module =
                words(after).next().filter(|_| after.starts_with(char::is_alphabetic)).unwrap_or("{..}");
            assert!(MODEL_MODULES.contains(&module), "{path} names crate::{module}");
        }
        assert!(!code.contains("super::super"), "{path} reaches out of models/");
    }
    assert!(seen > 0, "no model files");
}

#[test]
fn unsafe_code_stays_where_it_is_expected() {
    for (path, source) in rust_files() {
        let allowed = UNSAFE
            .iter()
            .any(|place| if place.ends_with('/') { path.starts_with(place) } else { path == *place });
        assert!(
            allowed || !words(&code(&source)).any(|word| word == "unsafe"),
            "{path} is no place for unsafe code"
        );
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for (path, source) in rust_files() {
        let lines = source.lines().count();
        assert!(
            lines < MAX_LINES,
            "{path} has {lines} lines: a file that needs a map at its top is two files"
        );
    }
}

#[test]
fn nothing_tells_where_it_was_made() {
    // In two halves, so that this file does not find itself.
    let traces = [("/wo", "rk/"), ("/tmp", "/w/"), ("work", "place"), ("colle", "ague")];
    for (path, text) in files(&[".rs", ".toml", ".md", ".py", ".sh", ".wgsl", ".txt", "run"]) {
        for (head, tail) in traces {
            let trace = format!("{head}{tail}");
            assert!(!text.to_lowercase().contains(&trace), "{path} contains {trace:?}");
        }
    }
}
