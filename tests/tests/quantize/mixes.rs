//! Every mix gives every tensor the type llama.cpp gives it.

use std::collections::BTreeMap;

use tempfile::tempdir;

use crate::{golden, stdout, synthetic};

#[test]
fn tensor_types_are_those_of_llama_cpp() {
    let folder = tempdir().unwrap();
    let path = match std::env::var_os("CCHAHA_KEEP") {
        Some(path) => path.into(),
        None => folder.path().join("synthetic.gguf"),
    };
    synthetic(&path);
    let golden = golden();
    let mixes = golden["types"].as_object().unwrap();
    assert!(mixes.len() > 15);
    for (mix, types) in mixes {
        let mut expected = BTreeMap::new();
        for (name, tensors) in types.as_object().unwrap() {
            for tensor in tensors.as_array().unwrap() {
                expected.insert(tensor.as_str().unwrap().to_owned(), name.clone());
            }
        }
        let table = stdout(&[path.to_str().unwrap(), "--type", mix, "--dry-run"]);
        let rows = table.lines().skip(1).take_while(|line| !line.is_empty());
        let found: BTreeMap<String, String> = rows
            .map(|row| {
                let cells: Vec<&str> =
                    row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
                (cells[0].to_owned(), cells[3].to_owned())
            })
            .collect();
        assert_eq!(found, expected, "{mix}");
    }
}
