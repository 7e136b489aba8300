//! Models in several files.

mod common;

use std::path::{Path, PathBuf};

use cchaha_gguf::{Error, Gguf, Metadata, TensorSpec, write};
use cchaha_plan::Format;
use common::{data, spec};

fn part_path(folder: &Path, part: usize, count: usize) -> PathBuf {
    folder.join(format!("model-{part:05}-of-{count:05}.gguf"))
}

/// What a part says of itself.
fn part_keys(no: u16, count: u16, n_tensors: i32) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("split.no", no).set("split.count", count).set("split.tensors.count", n_tensors);
    metadata
}

fn write_part(folder: &Path, part: usize, count: usize, metadata: &Metadata, tensors: &[TensorSpec]) {
    write(&part_path(folder, part, count), metadata, tensors, data(tensors)).expect("writes");
}

/// Three parts with two, none and one tensor.
fn three_parts(folder: &Path) -> [Vec<TensorSpec>; 3] {
    let parts = [
        vec![spec("a", Format::F32, &[4]), spec("b", Format::Q8_0, &[64])],
        vec![],
        vec![spec("c", Format::F16, &[2, 3])],
    ];
    for (i, tensors) in parts.iter().enumerate() {
        let mut metadata = part_keys(i as u16, 3, 3);
        metadata.set("part", i as u32);
        write_part(folder, i + 1, 3, &metadata, tensors);
    }
    parts
}

/// The error of opening the first part after `change`, which must name `parts` of the sentence.
fn says(change: impl FnOnce(&Path), parts: &[&str]) -> Error {
    let folder = tempfile::tempdir().expect("a folder");
    three_parts(folder.path());
    change(folder.path());
    let error = Gguf::open(&part_path(folder.path(), 1, 3)).expect_err("wrong parts");
    let text = error.to_string();
    parts.iter().for_each(|part| assert!(text.contains(part), "{text:?} has no {part:?}"));
    error
}

#[test]
fn any_part_opens_the_whole_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let parts = three_parts(folder.path());
    for part in 1..=3 {
        let model = Gguf::open(&part_path(folder.path(), part, 3)).expect("opens");
        assert_eq!(model.paths(), [1, 2, 3].map(|part| part_path(folder.path(), part, 3)));
        assert_eq!(model.metadata().require_u32("part").expect("the first part's"), 0);
        let found: Vec<_> = model.tensors().iter().map(|t| (t.name.as_str(), t.part)).collect();
        assert_eq!(found, [("a", 0), ("b", 0), ("c", 2)]);
        for (tensor, (i, wrote)) in
            model.tensors().iter().zip([(0, &parts[0]), (1, &parts[0]), (0, &parts[2])])
        {
            let mut expected = Vec::new();
            data(wrote)(i, &mut expected).expect("writes");
            assert_eq!(tensor.data.as_slice(), expected);
        }
        let lens = model.paths().iter().map(|path| path.metadata().expect("is there").len());
        assert_eq!(model.file_len(), lens.sum());
    }
}

#[test]
fn a_missing_part_is_named() {
    let remove = |folder: &Path| std::fs::remove_file(part_path(folder, 2, 3)).expect("removes");
    let error =
        says(remove, &["model-00002-of-00003.gguf", "no such file", "all of its 3 parts", "this is part 2"]);
    assert!(error.is_not_found());
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let one = [spec("c", Format::F16, &[2, 3])];
    says(|f| write_part(f, 3, 3, &part_keys(1, 3, 3), &one), &["00003-of-", "split.no is 1, expected 2"]);
    says(|f| write_part(f, 3, 3, &part_keys(2, 4, 3), &one), &["00003-of-", "split.count is 4"]);
    says(|f| write_part(f, 3, 3, &Metadata::new(), &one), &["00003-of-", "no key \"split.count\""]);
    says(|f| write_part(f, 3, 3, &part_keys(2, 3, 3), &[]), &["split.tensors.count is 3", "hold 2 tensors"]);
    let twice = [spec("a", Format::F32, &[4])];
    let error =
        says(|f| write_part(f, 3, 3, &part_keys(2, 3, 3), &twice), &["00003-of-", "\"a\"", "there twice"]);
    assert!(matches!(error, Error::Duplicate { .. }));
    let cut = |folder: &Path| {
        let path = part_path(folder, 3, 3);
        let bytes = std::fs::read(&path).expect("reads");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
    };
    says(cut, &["00003-of-", "cut short"]);
}

#[test]
fn one_part_alone_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    three_parts(folder.path());
    let renamed = folder.path().join("model.gguf");
    std::fs::rename(part_path(folder.path(), 1, 3), &renamed).expect("renames");
    let text = Gguf::open(&renamed).expect_err("a part").to_string();
    assert!(text.contains("one part of a model in 3") && text.contains("NAME-00001-of-00003.gguf"), "{text}");
    let bytes = std::fs::read(&renamed).expect("reads");
    let text = Gguf::from_bytes("part", bytes.into()).expect_err("a part").to_string();
    assert!(text.contains("one part of a model in 3"), "{text}");
}

#[test]
fn a_model_in_one_part_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    write_part(folder.path(), 1, 1, &part_keys(0, 1, 1), &[spec("a", Format::F32, &[4])]);
    assert_eq!(Gguf::open(&part_path(folder.path(), 1, 1)).expect("opens").tensors().len(), 1);
    // A name that only looks like a part's, and no keys.
    write_part(folder.path(), 1, 1, &Metadata::new(), &[spec("a", Format::F32, &[4])]);
    assert_eq!(Gguf::open(&part_path(folder.path(), 1, 1)).expect("opens").tensors().len(), 1);
}
