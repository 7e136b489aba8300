//! Models by name: from the Hugging Face hub into its usual cache, which other programs share.
//!
//! ```text
//! hf:OWNER/REPO[:QUANT] -- reference --> which files, from the hub's list (client) or the cache
//!                       -- download ---> blobs/SHA256.part, resumed, checked --> blobs/SHA256
//!                       -- cache ------> snapshots/COMMIT/FILE -> ../../blobs/SHA256, refs/main
//! ```

pub(crate) mod cache;
pub(crate) mod catalog;
mod client;
mod download;
mod reference;

use std::path::PathBuf;

use crate::exit::Result;
use cache::RepoCache;
use client::Client;
pub(crate) use reference::Reference;

/// The first part of the model in the cache; where it is not there, all parts are fetched first.
pub(crate) fn resolve(reference: &Reference) -> Result<PathBuf> {
    let cache = RepoCache::open(&reference.repo)?;
    let files = cache.files()?;
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    if let Ok(chosen) = reference.choose(&names) {
        // A name without a quantization means the best there is, and the hub may have a better one; but what is here
        // runs without a network.
        if let Some(file) = files.iter().find(|file| file.name == chosen[0]) {
            return Ok(file.path.clone());
        }
    }
    pull(reference)
}

/// Fetches all parts of the model that are not in the cache, and gives the first.
pub(crate) fn pull(reference: &Reference) -> Result<PathBuf> {
    let client = Client::new()?;
    let cache = RepoCache::open(&reference.repo)?;
    let listing = client.list(&reference.repo)?;
    let names: Vec<&str> = listing.files.iter().map(|file| file.name.as_str()).collect();
    let chosen: Vec<String> = reference.choose(&names)?.into_iter().map(str::to_owned).collect();
    let files: Vec<_> = listing.files.iter().filter(|file| chosen.contains(&file.name)).collect();
    let total: u64 = files.iter().map(|file| file.size).sum();
    tracing::info!("{reference}: {} files, {} bytes", files.len(), total);
    for file in files {
        let blob = download::fetch(&client, &cache, &reference.repo, &listing.commit, file)?;
        cache.link(&listing.commit, file, &blob)?;
    }
    cache.set_main(&listing.commit)?;
    Ok(cache.path_of(&listing.commit, &chosen[0]))
}
