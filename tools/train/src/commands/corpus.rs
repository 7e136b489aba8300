//! `corpus`: published packages to training text.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Align, Out, Table, bytes, plural, progress};
use clap::{Args, ValueHint};

use crate::corpus::fetch::{Files, fetch};
use crate::corpus::manifest::{DEFAULT, Manifest, Package};
use crate::corpus::select::{Seen, language, order};
use crate::corpus::{Document, Split, write};

/// Fetch packages and write their source and documentation as training text, without copies
#[derive(Debug, Args)]
pub struct Corpus {
    /// The folder to write
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,

    /// Packages to fetch [default: those that cchaha-tiny was trained on]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    manifest: Option<PathBuf>,

    /// Where archives are kept [default: DIR/packages]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    packages: Option<PathBuf>,
}

/// How much of a language a split holds.
#[derive(Default)]
struct Size {
    documents: usize,
    bytes: usize,
}

impl Corpus {
    pub(super) fn run(self) -> Result {
        let json = match &self.manifest {
            Some(path) => cchaha_cli::input::file(path)?,
            None => DEFAULT.to_owned(),
        };
        let manifest =
            Manifest::parse(&json).map_err(|problem| Failure::usage(format!("the manifest: {problem}")))?;
        let folder = self.packages.clone().unwrap_or_else(|| self.out.join("packages"));
        let failed = |path: &Path, error| Failure::other(format!("{}: {error}", path.display()));
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        fs::create_dir_all(&self.out).map_err(|error| failed(&self.out, error))?;

        let stop = Stoppable::begin();
        let mut bar = progress("packages");
        let mut seen = Seen::default();
        let mut sizes = std::collections::BTreeMap::<(Split, &str), Size>::new();
        let partial = |split: Split| split.path(&self.out).with_extension("docs.part");
        let mut files = Vec::new();
        for split in Split::ALL {
            let path = partial(split);
            files.push(BufWriter::new(File::create(&path).map_err(|error| failed(&path, error))?));
        }
        for (i, package) in manifest.packages.iter().enumerate() {
            if stop.requested() {
                return Err(Failure::interrupted());
            }
            bar.at(i, manifest.packages.len());
            let split = if package.held_out { Split::Heldout } else { Split::Train };
            let most = manifest.max_bytes.get(package.registry.name()).copied().unwrap_or(0);
            let found = fetch(package, &folder).map_err(Failure::other)?;
            for document in documents(package, found, most, &mut seen)? {
                let path = partial(split);
                write(&mut files[split as usize], &document).map_err(|error| failed(&path, error))?;
                let language = language(&document.path).unwrap_or("other");
                let size = sizes.entry((split, language)).or_default();
                size.documents += 1;
                size.bytes += document.text.len();
            }
        }
        drop(bar);
        for (split, mut file) in Split::ALL.into_iter().zip(files) {
            let path = partial(split);
            file.flush().map_err(|error| failed(&path, error))?;
            fs::rename(&path, split.path(&self.out)).map_err(|error| failed(&path, error))?;
        }
        let licenses = self.out.join("LICENSES.md");
        fs::write(&licenses, license_table(&manifest)).map_err(|error| failed(&licenses, error))?;

        let mut out = Out::new();
        let mut table = Table::new(&[
            ("split", Align::Left),
            ("language", Align::Left),
            ("files", Align::Right),
            ("text", Align::Right),
        ]);
        for ((split, language), size) in &sizes {
            table.row([
                split.name().to_owned(),
                (*language).to_owned(),
                size.documents.to_string(),
                bytes(size.bytes as u64),
            ]);
        }
        table.print(&mut out)?;
        out.line(format_args!("{} in {}", plural(manifest.packages.len(), "package"), self.out.display()))
    }
}

/// The documents of a package: at most so many bytes.
fn documents(package: &Package, mut found: Files, most: usize, seen: &mut Seen) -> Result<Vec<Document>> {
    found.retain(|(path, _)| language(path).is_some());
    found.sort_by_cached_key(|(path, _)| (order(path), path.clone()));
    let mut documents = Vec::new();
    let mut used = 0;
    for (path, file) in found {
        if used >= most {
            break;
        }
        let data = fs::read(&file).map_err(|error| Failure::other(format!("{}: {error}", file.display())))?;
        let (Some(language), Some(text)) = (language(&path), seen.take(&data)) else { continue };
        used += text.len();
        documents.push(Document { language: language.to_owned(), package: package.full_name(), path, text });
    }
    Ok(documents)
}

fn license_table(manifest: &Manifest) -> String {
    let mut text = String::from(
        "# Packages and licences\n\n| package | version | registry | licence | held out | sha256 |\n|---|---|---|---|---|---|\n",
    );
    for Package { registry, name, version, sha256, license, held_out } in &manifest.packages {
        let held_out = if *held_out { "yes" } else { "" };
        text +=
            &format!("| {name} | {version} | {} | {license} | {held_out} | `{sha256}` |\n", registry.name());
    }
    text
}
