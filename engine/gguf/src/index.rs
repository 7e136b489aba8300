//! Finding things by name: indices in name order, four bytes for each.

/// The order of a list's names. It holds no names itself, so every call takes a way to look one up.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex {
    sorted: Vec<u32>,
}

impl NameIndex {
    /// Sorts `0..len` by name. `Err` holds the later one of two equal names, the earliest such in the list.
    pub(crate) fn build<'a>(len: usize, name: impl Fn(usize) -> &'a str) -> Result<NameIndex, usize> {
        let len = u32::try_from(len).expect("invariant: lists are limited to far fewer than 2^32 names");
        let mut sorted: Vec<u32> = (0..len).collect();
        sorted.sort_unstable_by(|&a, &b| name(a as usize).cmp(name(b as usize)).then(a.cmp(&b)));
        let same = |pair: &&[u32]| name(pair[0] as usize) == name(pair[1] as usize);
        match sorted.windows(2).filter(same).map(|pair| pair[1]).min() {
            Some(second) => Err(second as usize),
            None => Ok(NameIndex { sorted }),
        }
    }

    /// Where `wanted` is in the list: `Ok` with its index there, or `Err` with its rank among the names.
    pub(crate) fn find<'a>(&self, wanted: &str, name: impl Fn(usize) -> &'a str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|&i| name(i as usize).cmp(wanted)).map(|rank| self.sorted[rank] as usize)
    }

    /// Adds the list's next index at `rank`, which [`find`](Self::find) gave.
    pub(crate) fn insert(&mut self, rank: usize) {
        let next = u32::try_from(self.sorted.len()).expect("invariant: far fewer than 2^32 names");
        self.sorted.insert(rank, next);
    }
}
