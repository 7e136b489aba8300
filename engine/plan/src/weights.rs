//! Shared, immutable bytes and the weights of a plan.

use std::ops::Range;
use std::sync::Arc;

/// What owns bytes.
pub trait Store: AsRef<[u8]> + Send + Sync {
    /// Nobody will read `range` for a while: what is also elsewhere, in a file, may leave memory. Reading it stays possible.
    fn release(&self, _range: Range<usize>) {}
}

impl Store for Vec<u8> {}

impl Store for &'static [u8] {}

/// A range of bytes that keeps its owner (a mapped file, a vector) alive. Cloning is cheap and copies nothing.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn Store>,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: Arc<dyn Store>) -> Bytes {
        let range = 0..(*owner).as_ref().len();
        Bytes { owner, range }
    }

    /// A part of these bytes, or `None` where `range` does not lie inside them.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end)
            .then(|| Bytes { owner: self.owner.clone(), range: start..end })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }

    /// Nobody will read them for a while; see [`Store::release`].
    pub fn release(&self) {
        self.owner.release(self.range.clone());
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::new(Arc::new(bytes))
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({:?})", self.range)
    }
}
