//! `hf:OWNER/REPO[:QUANT]`, and which files of a repository it means.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::exit::{Failure, Result};

/// Taken in this order where no quantization is named.
const PREFERRED: &[&str] = &["Q4_K_M", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0"];

/// A model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// `OWNER/REPO`.
    pub(crate) repo: String,
    /// A part of the file's name such as `Q4_K_M`, or the whole name.
    pub(crate) quant: Option<String>,
}

impl FromStr for Reference {
    type Err = Failure;

    /// With or without `hf:` in front.
    fn from_str(text: &str) -> Result<Reference> {
        let rest = text.strip_prefix("hf:").unwrap_or(text);
        let (repo, quant) = match rest.split_once(':') {
            Some((repo, quant)) => (repo, Some(quant)),
            None => (rest, None),
        };
        // The characters the hub allows; nothing that could lead out of a folder or an address.
        let is_name = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let is_repo = repo.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name));
        if !is_repo || quant.is_some_and(str::is_empty) {
            return Err(Failure::usage(format!(
                "{text:?} is no model on the hub, expected hf:OWNER/REPO or hf:OWNER/REPO:QUANT"
            )));
        }
        Ok(Reference { repo: repo.to_owned(), quant: quant.map(str::to_owned) })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        self.quant.iter().try_for_each(|quant| write!(f, ":{quant}"))
    }
}

impl Reference {
    /// What a flag that takes a file means, if it begins with `hf:`.
    pub(crate) fn in_flag(model: &Path) -> Option<Result<Reference>> {
        model.to_str().filter(|text| text.starts_with("hf:")).map(str::parse)
    }

    /// Names of all parts of the model this means among the files of its repository, the first part first.
    ///
    /// # Errors
    /// Where no complete model of that name is there, or more than one could be meant.
    pub(crate) fn choose<'a>(&self, names: &[&'a str]) -> Result<Vec<&'a str>> {
        let models = models(names);
        let all = || models.iter().map(|parts| parts[0]).collect::<Vec<_>>().join(", ");
        if models.is_empty() {
            return Err(missing(format!(
                "hf:{} has no GGUF file; look for a repository whose name ends in GGUF",
                self.repo
            )));
        }
        let Some(quant) = &self.quant else {
            let preferred =
                PREFERRED.iter().find_map(|quant| models.iter().find(|parts| has(parts[0], quant)));
            return match (preferred, models.as_slice()) {
                (Some(parts), _) | (None, [parts]) => Ok(parts.clone()),
                _ => Err(missing(format!(
                    "hf:{} has several models; name one of {} after a colon",
                    self.repo,
                    all()
                ))),
            };
        };
        let same = |parts: &&Vec<&str>| parts[0].eq_ignore_ascii_case(quant);
        let mut named: Vec<_> = models.iter().filter(|parts| has(parts[0], quant)).collect();
        // Some repositories have the same model both whole and split.
        let wholes: Vec<&str> = named.iter().filter_map(|parts| parts[0].strip_suffix(".gguf")).collect();
        named.retain(|parts| !split(parts[0]).is_some_and(|(stem, ..)| wholes.contains(&stem)));
        match (models.iter().find(same).as_ref(), named.as_slice()) {
            (Some(parts), _) | (None, [parts]) => Ok(parts.to_vec()),
            (None, []) => Err(missing(format!("hf:{} has no {quant}; it has {}", self.repo, all()))),
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|parts| parts[0]).collect();
                Err(missing(format!("{self} could be each of {}; give the whole name", names.join(", "))))
            }
        }
    }
}

fn missing(message: String) -> Failure {
    Failure::new(cchaha::ErrorKind::Model, message)
}

/// The complete models among the files: a file, or all parts of a split one (`NAME-00001-of-00003.gguf`). What belongs
/// to other parts of a model than its language model is left out.
fn models<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut names: Vec<&str> = names.iter().copied().filter(|name| name.ends_with(".gguf")).collect();
    names.retain(|name| {
        !name.rsplit('/').next().is_some_and(|file| file.starts_with("mmproj") || file.contains("imatrix"))
    });
    names.sort_unstable();
    names.dedup();
    let mut models = Vec::new();
    for &name in &names {
        match split(name) {
            None => models.push(vec![name]),
            Some((stem, 1, parts)) => {
                let all: Vec<&str> = names
                    .iter()
                    .copied()
                    .filter(|n| split(n).is_some_and(|(s, _, p)| (s, p) == (stem, parts)))
                    .collect();
                if all.len() == parts {
                    models.push(all);
                }
            }
            Some(_) => {}
        }
    }
    models
}

/// `NAME-00002-of-00003.gguf` as `(NAME, 2, 3)`.
fn split(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, parts) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    Some((stem, part.parse().ok()?, parts.parse().ok()?))
}

/// Whether a quantization stands in the name between marks, in any case.
fn has(name: &str, quant: &str) -> bool {
    let (name, quant) = (name.to_ascii_lowercase(), quant.to_ascii_lowercase());
    let is_mark = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
    name.match_indices(&quant).any(|(at, _)| {
        is_mark(name[..at].chars().next_back()) && is_mark(name[at + quant.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let read = |text: &str| text.parse::<Reference>().map(|reference| reference.to_string());
        for text in
            ["hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "hf:a/b:Q4_K_M", "hf:a/b:x-00001-of-00002.gguf"]
        {
            assert_eq!(read(text).expect("a reference"), text);
        }
        assert_eq!(read("a/b").expect("a reference"), "hf:a/b");
        for text in [
            "hf:", "hf:a", "hf:a/", "hf:/b", "hf:../b", "hf:a/..", "hf:a/b/c", "hf:a/b:", "hf:a b/c",
            "hf:a/b?x",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_are_chosen() {
        let names = [
            "README.md",
            "m-q4_k_m.gguf",
            "m-q8_0.gguf",
            "mmproj-m-f16.gguf",
            "fp16/m-fp16-00001-of-00002.gguf",
            "fp16/m-fp16-00002-of-00002.gguf",
            "m-q2_k-00001-of-00002.gguf",
            "m-q6_k.gguf",
            "m-q6_k-00001-of-00001.gguf",
        ];
        let choose = |quant: Option<&str>| {
            let quant = quant.map(str::to_owned);
            Reference { repo: "a/b".into(), quant }.choose(&names).map_err(|error| error.message().to_owned())
        };
        assert_eq!(choose(None), Ok(vec!["m-q4_k_m.gguf"]));
        assert_eq!(choose(Some("Q8_0")), Ok(vec!["m-q8_0.gguf"]));
        assert_eq!(choose(Some("m-q8_0.gguf")), Ok(vec!["m-q8_0.gguf"]));
        assert_eq!(choose(Some("FP16")), Ok(vec![names[4], names[5]]));
        assert_eq!(choose(Some("Q6_K")), Ok(vec!["m-q6_k.gguf"]), "whole rather than split");
        assert_eq!(choose(Some("m-q6_k-00001-of-00001.gguf")), Ok(vec![names[8]]));
        for (quant, word) in [("Q4_K", "has no Q4_K"), ("Q2_K", "has no Q2_K"), ("m", "could be each of")] {
            let error = choose(Some(quant)).expect_err("no such model");
            assert!(error.contains(word), "{error}");
        }
        let none = Reference { repo: "a/b".into(), quant: None }.choose(&["config.json"]);
        assert!(none.expect_err("no model").message().contains("no GGUF file"));
    }
}
