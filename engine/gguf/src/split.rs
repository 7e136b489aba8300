//! Names of split models: `NAME-00001-of-00003.gguf`, parts counted from 1.

use std::path::{Path, PathBuf};

/// Which part of how many a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitPath {
    folder: PathBuf,
    prefix: String,
    /// From 1.
    pub(crate) part: u32,
    pub(crate) count: u32,
}

impl SplitPath {
    /// `None` where the name is not that of a part.
    pub(crate) fn parse(path: &Path) -> Option<SplitPath> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, part) = rest.rsplit_once('-')?;
        let (part, count) = (five_digits(part)?, five_digits(count)?);
        let folder = path.parent()?.to_path_buf();
        (1..=count).contains(&part).then(|| SplitPath { folder, prefix: prefix.to_owned(), part, count })
    }

    /// The path of another part.
    pub(crate) fn sibling(&self, part: u32) -> PathBuf {
        self.folder.join(format!("{}-{part:05}-of-{:05}.gguf", self.prefix, self.count))
    }
}

fn five_digits(text: &str) -> Option<u32> {
    (text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_part_names_are_parts() {
        let split = SplitPath::parse(Path::new("a/b-00002-of-00003.gguf")).expect("a part's name");
        assert_eq!((split.part, split.count), (2, 3));
        assert_eq!(split.sibling(1), Path::new("a/b-00001-of-00003.gguf"));
        for name in [
            "b.gguf",
            "b-00002-of-00003",
            "b-2-of-3.gguf",
            "b-00000-of-00003.gguf",
            "b-00004-of-00003.gguf",
            "b-+0001-of-00003.gguf",
        ] {
            assert_eq!(SplitPath::parse(Path::new(name)), None, "{name}");
        }
    }
}
