//! Tokens of a whole corpus, with what training needs to know of each, in memory and in a file that saves making them again.
//!
//! ```text
//! "cchaha-tokens 1\n"   JSON, one line: Head   ends of the pieces (u64 each)   bytes of each (u64, top bit: not to be cut)
//! tokens (u32 each)   notes (u32 each): scope position << 2 | not learned from << 1 | pinned
//! ```

use std::fs::File;
use std::hash::Hasher;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cchaha::kernels::Pool;
use cchaha::text::Tokenizer;
use cchaha_cli::exit::{Failure, Result};
use cchaha_cli::interrupt::Stoppable;
use cchaha_cli::output::{Unit, progress_in};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use super::Stage;
use crate::corpus::{self, Document, Split};
use crate::rng::Rng;

const MAGIC: &[u8] = b"cchaha-tokens 1\n";
/// Pinned, in a note.
const PINNED: u32 = 1;
/// Not learned from, in a note.
const GIVEN: u32 = 2;
/// In a piece's bytes.
const WHOLE: u64 = 1 << 63;
/// Documents handed out at a time.
const BATCH: usize = 512;

/// Tokens of one piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// With those that begin and end the text.
    pub tokens: Vec<u32>,
    /// Scope position of each.
    pub scopes: Vec<u32>,
    /// Whether each stays visible to windows.
    pub pinned: Vec<bool>,
    /// Whether predicting it counts; a prompt's tokens are given.
    pub learned: Vec<bool>,
    /// Bytes of the text.
    pub bytes: usize,
    /// Whether the piece makes no sense in parts.
    pub whole: bool,
}

/// One piece of a store.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    tokens: &'a [u32],
    notes: &'a [u32],
    /// Bytes of its text.
    pub bytes: usize,
    /// Whether it makes no sense in parts.
    pub whole: bool,
}

impl Piece<'_> {
    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        self.tokens
    }

    /// Scope positions.
    pub fn scopes(&self) -> impl Iterator<Item = u32> {
        self.notes.iter().map(|note| note >> 2)
    }

    /// Pins.
    pub fn pinned(&self) -> impl Iterator<Item = bool> {
        self.notes.iter().map(|note| note & PINNED != 0)
    }

    /// Which tokens count when they are predicted.
    pub fn learned(&self) -> impl Iterator<Item = bool> {
        self.notes.iter().map(|note| note & GIVEN == 0)
    }
}

/// All pieces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Store {
    ends: Vec<u64>,
    bytes: Vec<u64>,
    tokens: Vec<u32>,
    notes: Vec<u32>,
}

/// What a file says of itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Of everything the tokens depend on.
    key: u64,
    pieces: u64,
    tokens: u64,
}

impl Store {
    /// Pieces.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Tokens of all pieces.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Bytes of text of all pieces.
    pub fn bytes(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes & !WHOLE).sum()
    }

    /// A piece.
    ///
    /// # Panics
    /// Beyond the last.
    pub fn piece(&self, i: usize) -> Piece<'_> {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let range = start..self.ends[i] as usize;
        Piece {
            tokens: &self.tokens[range.clone()],
            notes: &self.notes[range],
            bytes: (self.bytes[i] & !WHOLE) as usize,
            whole: self.bytes[i] & WHOLE != 0,
        }
    }

    /// Adds a piece.
    pub fn push(&mut self, piece: &Tokens) {
        self.tokens.extend(&piece.tokens);
        let flags = piece.pinned.iter().zip(&piece.learned);
        let notes = piece.scopes.iter().zip(flags).map(|(&scope, (&pinned, &learned))| {
            scope << 2 | if learned { 0 } else { GIVEN } | if pinned { PINNED } else { 0 }
        });
        self.notes.extend(notes);
        self.ends.push(self.tokens.len() as u64);
        self.bytes.push(piece.bytes as u64 | if piece.whole { WHOLE } else { 0 });
    }

    /// The same pieces with other scope positions, pins or prompts.
    #[must_use]
    pub fn changed(&self, change: &dyn Fn(&mut Tokens)) -> Store {
        let mut store = Store::default();
        for piece in (0..self.len()).map(|i| self.piece(i)) {
            let mut tokens = Tokens {
                tokens: piece.tokens().to_vec(),
                scopes: piece.scopes().collect(),
                pinned: piece.pinned().collect(),
                learned: piece.learned().collect(),
                bytes: piece.bytes,
                whole: piece.whole,
            };
            change(&mut tokens);
            store.push(&tokens);
        }
        store
    }

    /// The pieces `stage` makes of a split of a corpus: from `cache` if it holds them, else made now on all threads and kept there.
    ///
    /// # Errors
    /// Where the corpus cannot be read or the cache not be written, and on Ctrl-C.
    pub fn prepare(
        pool: &Pool,
        stage: &Stage,
        split: Split,
        corpus: &Path,
        tokenizer: (&Tokenizer, &[u8]),
        context: usize,
        cache: &Path,
    ) -> Result<Store> {
        let mut key = XxHash64::with_seed(context as u64);
        key.write(stage.name.as_bytes());
        key.write(tokenizer.1);
        let path = split.path(corpus);
        let unreadable = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
        let total = hash_file(&path, &mut key).map_err(unreadable)?;
        let key = key.finish();
        if let Some(store) = Store::load(cache, key) {
            return Ok(store);
        }
        let store = Store::make(pool, stage, split, corpus, tokenizer.0, context, total)?;
        store
            .save(cache, key)
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", cache.display())))?;
        Ok(store)
    }

    fn make(
        pool: &Pool,
        stage: &Stage,
        split: Split,
        corpus: &Path,
        tokenizer: &Tokenizer,
        context: usize,
        total: u64,
    ) -> Result<Store> {
        let stop = Stoppable::begin();
        let mut bar = progress_in(Unit::Bytes, format!("tokens for {}", stage.name));
        let mut documents = corpus::documents(corpus, split).map_err(failed)?;
        let mut store = Store::default();
        let (mut number, mut done) = (0u64, 0);
        loop {
            let batch: Vec<Document> =
                documents.by_ref().take(BATCH).collect::<std::result::Result<_, _>>().map_err(failed)?;
            if batch.is_empty() {
                return Ok(store);
            }
            let read = AtomicUsize::new(0);
            let mut pieces: Vec<Vec<Tokens>> = batch.iter().map(|_| Vec::new()).collect();
            pool.each(batch.iter().zip(&mut pieces).zip(number..), |((document, pieces), number)| {
                *pieces = (stage.pieces)(tokenizer, document, context, &mut Rng::new(number, 3));
                read.fetch_add(document.text.len(), Ordering::Relaxed);
            });
            pieces.iter().flatten().for_each(|piece| store.push(piece));
            number += batch.len() as u64;
            done += read.into_inner();
            bar.at(done, total as usize);
            if stop.requested() {
                return Err(Failure::interrupted());
            }
        }
    }

    /// What a file holds, if it is one made with this key.
    fn load(path: &Path, key: u64) -> Option<Store> {
        let file = File::open(path).ok()?;
        let len = file.metadata().ok()?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; MAGIC.len()];
        reader.read_exact(&mut magic).ok()?;
        let head: Head = serde_json::from_slice(&line(&mut reader)?).ok()?;
        let room = |count: u64, size: u64| count.checked_mul(size).is_some_and(|bytes| bytes <= len);
        if magic != MAGIC || head.key != key || !room(head.pieces, 16) || !room(head.tokens, 8) {
            return None;
        }
        let mut store = Store {
            ends: vec![0; head.pieces as usize],
            bytes: vec![0; head.pieces as usize],
            tokens: vec![0; head.tokens as usize],
            notes: vec![0; head.tokens as usize],
        };
        reader.read_exact(bytemuck::cast_slice_mut(&mut store.ends)).ok()?;
        reader.read_exact(bytemuck::cast_slice_mut(&mut store.bytes)).ok()?;
        reader.read_exact(bytemuck::cast_slice_mut(&mut store.tokens)).ok()?;
        reader.read_exact(bytemuck::cast_slice_mut(&mut store.notes)).ok()?;
        let right = store.ends.is_sorted() && store.ends.last().copied().unwrap_or(0) == head.tokens;
        right.then_some(store)
    }

    fn save(&self, path: &Path, key: u64) -> std::io::Result<()> {
        crate::run::replace_file(path, |out| {
            let head = Head { key, pieces: self.ends.len() as u64, tokens: self.tokens.len() as u64 };
            let mut out = BufWriter::with_capacity(1 << 20, out);
            out.write_all(MAGIC)?;
            serde_json::to_writer(&mut out, &head)?;
            out.write_all(b"\n")?;
            out.write_all(bytemuck::cast_slice(&self.ends))?;
            out.write_all(bytemuck::cast_slice(&self.bytes))?;
            out.write_all(bytemuck::cast_slice(&self.tokens))?;
            out.write_all(bytemuck::cast_slice(&self.notes))?;
            out.flush()
        })
    }
}

fn failed(error: corpus::CorpusError) -> Failure {
    Failure::usage(error.to_string())
}

/// Bytes up to the end of a line, which a head is not longer than.
fn line(reader: &mut impl Read) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 4096 {
        reader.read_exact(&mut byte).ok()?;
        if byte[0] == b'\n' {
            return Some(line);
        }
        line.push(byte[0]);
    }
    None
}

/// Adds a file to a hash; gives its length.
fn hash_file(path: &Path, hash: &mut XxHash64) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(len),
            n => {
                hash.write(&buffer[..n]);
                len += n as u64;
            }
        }
    }
}
