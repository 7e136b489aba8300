//! What short words became, because most words of a text have been seen before.

use super::vocab::hash;

/// A direct-mapped cache: a word has one place, and whoever comes last has it.
pub(super) struct WordCache {
    entries: Box<[Entry]>,
}

#[derive(Clone, Copy)]
struct Entry {
    word: [u8; MAX_BYTES],
    ids: [u32; MAX_IDS],
    /// 0 for an entry that was never set.
    n_bytes: u8,
    class: u8,
    n_ids: u8,
}

/// Longest word that is kept: most identifiers and indentations.
const MAX_BYTES: usize = 24;
const MAX_IDS: usize = 5;
/// About 0.8 MB, to stay in a core's second-level cache.
const ENTRIES: usize = 1 << 14;

impl Default for WordCache {
    fn default() -> WordCache {
        let empty = Entry { word: [0; MAX_BYTES], ids: [0; MAX_IDS], n_bytes: 0, class: 0, n_ids: 0 };
        WordCache { entries: vec![empty; ENTRIES].into_boxed_slice() }
    }
}

/// Where a word belongs, `None` for one that is too long (or empty), and its class.
#[derive(Clone, Copy)]
pub(super) struct Place(Option<usize>, u8);

impl WordCache {
    /// The ids of `word` if they are known, and its place. Words of other classes are other words.
    #[inline]
    pub(super) fn get(&self, class: u8, word: &[u8]) -> (Option<&[u32]>, Place) {
        if word.is_empty() || word.len() > MAX_BYTES {
            return (None, Place(None, class));
        }
        let place = hash(word, class.into()) as usize % ENTRIES;
        let entry = &self.entries[place];
        let known =
            entry.n_bytes as usize == word.len() && entry.class == class && entry.word[..word.len()] == *word;
        (known.then(|| &entry.ids[..entry.n_ids.into()]), Place(Some(place), class))
    }

    /// Remembers the ids of `word`, unless they are too many.
    pub(super) fn put(&mut self, Place(place, class): Place, word: &[u8], ids: &[u32]) {
        let Some(place) = place.filter(|_| ids.len() <= MAX_IDS) else { return };
        let entry = &mut self.entries[place];
        entry.word[..word.len()].copy_from_slice(word);
        entry.ids[..ids.len()].copy_from_slice(ids);
        (entry.n_bytes, entry.class) = (word.len() as u8, class);
        entry.n_ids = ids.len() as u8;
    }
}
