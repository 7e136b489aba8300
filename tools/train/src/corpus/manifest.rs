//! What a corpus is made of: packages by name, version and sha256, their licences, and which are held out.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The corpus that the embedded model is trained on.
pub const DEFAULT: &str = include_str!("../../corpus.json");

/// Licences under which code may be learned from; a package's expression must name one of them.
const PERMISSIVE: [&str; 7] =
    ["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unlicense", "PSF-2.0"];

/// A list of packages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Most text taken from a package of each registry, so that none outweighs the others.
    pub max_bytes: BTreeMap<String, usize>,
    /// The packages.
    pub packages: Vec<Package>,
}

/// Where a package is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Registry {
    /// crates.io, through cargo.
    #[serde(rename = "crates.io")]
    Crates,
    /// PyPI, through pip: wheels that hold source only.
    #[serde(rename = "pypi")]
    Pypi,
}

impl Registry {
    /// As manifests name it.
    pub const fn name(self) -> &'static str {
        match self {
            Registry::Crates => "crates.io",
            Registry::Pypi => "pypi",
        }
    }
}

/// One package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Where it comes from.
    pub registry: Registry,
    /// Its name there.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// Of its archive, in lower-case hex.
    pub sha256: String,
    /// SPDX expression.
    pub license: String,
    /// Whether it is for measuring and never for learning.
    #[serde(default)]
    pub held_out: bool,
}

impl Package {
    /// `NAME-VERSION`.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    fn is_permissive(&self) -> bool {
        let words = |text: &str| {
            text.split([' ', '(', ')']).map(str::to_owned).filter(|word| !word.is_empty()).collect::<Vec<_>>()
        };
        let permissive =
            |part: &str| words(part).first().is_some_and(|license| PERMISSIVE.contains(&license.as_str()));
        // One alternative must be permissive in all its parts.
        self.license.split(" OR ").any(|choice| choice.split(" AND ").all(permissive))
    }
}

impl Manifest {
    /// Reads JSON and checks names, sums and licences.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(json: &str) -> Result<Manifest, String> {
        let mut manifest: Manifest = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let plain = |text: &str| {
            !text.is_empty()
                && !text.starts_with(['-', '.'])
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
        };
        for package in &manifest.packages {
            let name = package.full_name();
            if !plain(&package.name) || !plain(&package.version) {
                return Err(format!("{name:?} is no name and version of a package"));
            }
            if package.sha256.len() != 64 || !package.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("{name}: sha256 must have 64 hex digits"));
            }
            if !package.is_permissive() {
                return Err(format!("{name}: licence {:?} is not one of {PERMISSIVE:?}", package.license));
            }
            if !manifest.max_bytes.contains_key(package.registry.name()) {
                return Err(format!("max_bytes says nothing of {}", package.registry.name()));
            }
        }
        // Held-out packages first, so that what others copied from them is not learned.
        manifest.packages.sort_by_key(|package| (!package.held_out, package.registry, package.full_name()));
        if manifest.packages.windows(2).any(|two| two[0].full_name() == two[1].full_name()) {
            return Err("a package is listed twice".to_owned());
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_manifest_is_sound() {
        let manifest = Manifest::parse(DEFAULT).unwrap();
        assert!(manifest.packages.iter().any(|package| package.held_out));
        assert!(manifest.packages.iter().filter(|package| !package.held_out).count() > 50);
    }

    #[test]
    fn licences_and_names_are_checked() {
        let manifest = |license: &str, name: &str| {
            let sha256 = "0".repeat(64);
            Manifest::parse(&format!(
                r#"{{"max_bytes": {{"pypi": 1}}, "packages": [{{"registry": "pypi", "name": "{name}", "version": "1",
                    "sha256": "{sha256}", "license": "{license}"}}]}}"#
            ))
        };
        for good in ["MIT", "GPL-3.0 OR MIT", "Apache-2.0 WITH LLVM-exception", "Apache-2.0 AND MIT"] {
            assert!(manifest(good, "a").is_ok(), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MITx"] {
            assert!(manifest(bad, "a").is_err(), "{bad}");
        }
        for bad in ["", "../a", "-a", "a b", "a;b"] {
            assert!(manifest("MIT", bad).is_err(), "{bad}");
        }
    }
}
