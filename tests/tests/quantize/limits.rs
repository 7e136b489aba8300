//! What a conversion may take: memory, room on the disk, and the names of files that are there.

use std::fs::{self, File};
use std::path::Path;

use cchaha_gguf::{Dims, Gguf, Metadata, TensorSpec, Value};
use cchaha_plan::Format;
use tempfile::tempdir;

use crate::{fails, stdout, synthetic};

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn llama() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::Str("llama".into()));
    metadata
}

/// A source eight times as large as one tensor passes through the memory of two.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_bounded_by_the_two_largest_tensors() {
    const TENSOR: usize = 32 << 20;
    let folder = tempdir().unwrap();
    let (input, output) = (folder.path().join("in.gguf"), folder.path().join("out.gguf"));
    let specs: Vec<TensorSpec> = (0..8)
        .map(|i| TensorSpec {
            name: format!("blk.{i}.ffn_up.weight"),
            format: Format::F32,
            dims: Dims::new(&[2048, TENSOR / 4 / 2048]).unwrap(),
        })
        .collect();
    let row: Vec<u8> = (0..2048).flat_map(|i: u32| ((i * 37 % 101) as f32 - 50.0).to_le_bytes()).collect();
    cchaha_gguf::write(&input, &llama(), &specs, |_, out| {
        (0..TENSOR / row.len()).try_for_each(|_| out.write_all(&row))
    })
    .unwrap();
    for mix in ["Q8_0", "F16"] {
        let mut child = crate::quantize(&[text(&input), text(&output), "-t", mix, "-j", "2", "--force"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            // The peak so far, so that only the last moments are missed.
            let now = fs::read_to_string(&status).unwrap_or_default();
            let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
            peak = peak.max(kib.unwrap_or(0) << 10);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(child.wait().unwrap().success());
        assert!(peak > 1 << 20, "nothing was seen of the memory");
        assert!(peak < 2 * TENSOR, "{mix}: {peak} bytes of memory");
    }
}

#[cfg(unix)]
#[test]
fn no_room_is_said_before_anything_is_written() {
    // A tensor of 4 TiB in a file of holes.
    const COLS: u64 = 1 << 20;
    let folder = tempdir().unwrap();
    let (input, output) = (folder.path().join("in.gguf"), folder.path().join("out.gguf"));
    let mut head: Vec<u8> = Vec::new();
    let string = |head: &mut Vec<u8>, text: &str| {
        head.extend((text.len() as u64).to_le_bytes());
        head.extend(text.as_bytes());
    };
    head.extend(b"GGUF");
    head.extend(3u32.to_le_bytes());
    head.extend([1u64, 1].map(u64::to_le_bytes).concat());
    string(&mut head, "general.architecture");
    head.extend(8u32.to_le_bytes());
    string(&mut head, "llama");
    string(&mut head, "blk.0.ffn_up.weight");
    head.extend(2u32.to_le_bytes());
    head.extend([COLS, COLS].map(u64::to_le_bytes).concat());
    head.extend(0u32.to_le_bytes());
    head.extend(0u64.to_le_bytes());
    head.resize(head.len().next_multiple_of(32), 0);
    fs::write(&input, &head).unwrap();
    let file = File::options().write(true).open(&input).unwrap();
    file.set_len(head.len() as u64 + 4 * COLS * COLS).expect("a file system with sparse files of 4 TiB");
    fails(&[text(&input), text(&output), "-t", "F16"], 1, &["out.gguf takes 2.0 TiB", "has room for"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_older_split_neither_stays_nor_is_lost_by_accident() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let names = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    synthetic(&at("in.gguf"));
    let (input, output) = (at("in.gguf"), at("out.gguf"));
    let split = |size| vec![text(&input), text(&output), "-t", "Q8_0", "--split-max-size", size];
    stdout(&split("1M"));
    let old = names();
    assert!(old.len() > 4, "{old:?}");
    fails(&split("3M"), 2, &["out-00001-of-", "exists", "--force"]);
    assert_eq!(names(), old);
    let forced = [split("3M"), vec!["--force"]].concat();
    let printed = stdout(&forced);
    let parts = printed.lines().filter(|line| line.starts_with("wrote")).count();
    assert!(parts > 1 && parts + 1 < old.len());
    assert_eq!(names().len(), parts + 1, "{:?}", names());
    assert!(Gguf::open(&at(&format!("out-00001-of-{parts:05}.gguf"))).is_ok());
    // The parts as the source of what would replace them.
    let first = at(&format!("out-00001-of-{parts:05}.gguf"));
    let itself = [text(&first), text(&output), "-t", "Q4_0", "--split-max-size", "1M", "--force"];
    let before = names();
    fails(&itself, 2, &["is the input itself"]);
    assert_eq!(names(), before);
}
