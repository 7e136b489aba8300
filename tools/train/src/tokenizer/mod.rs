//! Learning a tokenizer from a corpus.
//!
//! ```text
//! documents -> spans, counted by all cores -> joins, most frequent first -> GGUF metadata
//! ```

mod learn;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cchaha::gguf::{Metadata, Strings};
use cchaha::text::{
    HybridSpec, Join, Splitter, TokenClass, TokenizerError, part_ranges, split_words, to_printable,
};

use crate::corpus::{self, CorpusError, Document, Split};
use learn::{Pair, Word, learn};

/// Control tokens of every vocabulary made here, in the order of their ids. The marks are Qwen2.5-Coder's.
pub const CONTROL: [&str; 9] = [
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|im_start|>",
    "<|im_end|>",
];

/// The pre-tokenizer of the plain vocabulary that hybrid ones are compared with.
const BPE_RULE: &str = "qwen2";
/// A keyword must be so frequent, once in so many bytes, to be worth a token.
const BYTES_PER_KEYWORD: usize = 200_000;
/// One name of the closed vocabulary for so many tokens.
const TOKENS_PER_NAME: usize = 100;
/// One join of whole parts for so many joins.
const JOINS_PER_PART_JOIN: usize = 16;
/// A name belongs to the closed vocabulary only if so many packages use it.
const PACKAGES_PER_NAME: usize = 12;

/// What kind of vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Classes with vocabularies of their own.
    Hybrid,
    /// The same with classes drawn by lot: the placebo.
    HybridShuffled,
    /// Plain byte-level BPE: the baseline.
    Bpe,
}

/// Why no tokenizer was made.
#[derive(Debug)]
pub enum LearnError {
    /// The corpus cannot be read.
    Corpus(CorpusError),
    /// The vocabulary has no room for what every vocabulary needs.
    Small {
        /// Tokens asked for.
        asked: usize,
        /// Tokens that any text needs.
        least: usize,
    },
    /// The text has too few different pairs.
    Poor {
        /// Tokens asked for.
        asked: usize,
        /// Tokens there can be.
        made: usize,
    },
    /// What came out is not sound.
    Vocabulary(TokenizerError),
}

impl std::fmt::Display for LearnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LearnError::Corpus(error) => error.fmt(f),
            LearnError::Vocabulary(error) => error.fmt(f),
            LearnError::Small { asked, least } => {
                write!(
                    f,
                    "a vocabulary of {asked} tokens is too small: this kind needs {least} and then some"
                )
            }
            LearnError::Poor { asked, made } => write!(
                f,
                "the corpus gives {made} tokens and not {asked}; take a smaller vocabulary or more text"
            ),
        }
    }
}

impl std::error::Error for LearnError {}

impl From<CorpusError> for LearnError {
    fn from(error: CorpusError) -> LearnError {
        LearnError::Corpus(error)
    }
}

impl From<TokenizerError> for LearnError {
    fn from(error: TokenizerError) -> LearnError {
        LearnError::Vocabulary(error)
    }
}

/// Hears what is being done, how much of it is done, and out of how much.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// Learns a vocabulary of `n` tokens from a corpus's training split: the metadata of its GGUF file.
///
/// # Errors
/// Where the corpus cannot be read, or gives no such vocabulary.
pub fn learn_from(
    corpus: &Path,
    kind: Kind,
    n: usize,
    progress: Progress<'_>,
) -> Result<Metadata, LearnError> {
    let documents: Vec<Document> = corpus::documents(corpus, Split::Train)?.collect::<Result<_, _>>()?;
    let mut meta = match kind {
        Kind::Hybrid => hybrid(&documents, n, false, progress)?,
        Kind::HybridShuffled => hybrid(&documents, n, true, progress)?,
        Kind::Bpe => bpe(&documents, n, progress)?,
    };
    meta.set("general.name", format!("cchaha {n} tokens"));
    for (key, id) in [
        // Every document begins and ends with the same mark.
        ("tokenizer.ggml.bos_token_id", 0_u32),
        ("tokenizer.ggml.eos_token_id", 0),
        ("tokenizer.ggml.fim_pre_token_id", 1),
        ("tokenizer.ggml.fim_mid_token_id", 2),
        ("tokenizer.ggml.fim_suf_token_id", 3),
        ("tokenizer.ggml.fim_pad_token_id", 4),
        ("tokenizer.ggml.fim_rep_token_id", 5),
        ("tokenizer.ggml.fim_sep_token_id", 6),
    ] {
        meta.set(key, id);
    }
    meta.set("tokenizer.ggml.add_bos_token", true);
    Ok(meta)
}

fn hybrid(
    documents: &[Document],
    n: usize,
    shuffled: bool,
    progress: Progress<'_>,
) -> Result<Metadata, LearnError> {
    let mut spec = HybridSpec {
        n_control: CONTROL.len() as u32,
        keywords: closed_words(documents, n / TOKENS_PER_NAME),
        shuffled,
        ..HybridSpec::default()
    };
    let room = |spec: &HybridSpec| -> Result<usize, LearnError> {
        let least = spec.initial()?.starts()[6] as usize;
        n.checked_sub(least).ok_or(LearnError::Small { asked: n, least })
    };
    let all = room(&spec)?;
    let inside = all - all / JOINS_PER_PART_JOIN;

    // First what parts are made of,
    let spans = count(documents, progress, || {
        let mut splitter = Splitter::new(&spec);
        move |text: &[u8], each: &mut dyn FnMut(u8, &[u8])| {
            splitter.split(text, |class, key| match class {
                TokenClass::Byte => (),
                TokenClass::Structure => each(class as u8, key),
                _ => part_ranges(key).for_each(|part| each(class as u8, &key[part])),
            });
        }
    });
    let initial = spec.initial()?;
    let mut words: Vec<Word> = spans
        .iter()
        .map(|((class, key), count)| {
            Word::part(*class, *count, &initial.symbols(TokenClass::ALL[usize::from(*class)], key))
        })
        .collect();
    drop(spans);
    join(&mut spec, &mut words, inside, "joins", progress)?;

    // then what is joined from whole parts.
    let initial = spec.initial()?;
    let runs = count(documents, progress, || {
        let initial = &initial;
        let mut key = Vec::new();
        move |text: &[u8], each: &mut dyn FnMut(u8, &[u8])| {
            initial.runs(text, |class, run| {
                if class > TokenClass::Structure && run.len() > 1 {
                    key.clear();
                    key.extend(
                        run.iter().flat_map(|&(id, whole)| (id << 1 | u32::from(whole)).to_le_bytes()),
                    );
                    each(class as u8, &key);
                }
            });
        }
    });
    let mut words: Vec<Word> = runs
        .iter()
        .map(|((class, key), count)| {
            let (ids, _) = key.as_chunks::<4>();
            Word::of_parts(
                *class,
                *count,
                ids.iter().map(|&id| u32::from_le_bytes(id)).map(|id| (id >> 1, id & 1 == 1)),
            )
        })
        .collect();
    drop(runs);
    let further = room(&spec)?;
    join(&mut spec, &mut words, further, "joins of parts", progress)?;
    let mut meta = Metadata::new();
    spec.write(&CONTROL, &mut meta)?;
    Ok(meta)
}

/// Learns `n` joins and adds them.
fn join(
    spec: &mut HybridSpec,
    words: &mut [Word],
    n: usize,
    what: &str,
    progress: Progress<'_>,
) -> Result<(), LearnError> {
    let initial = spec.initial()?;
    let starts = initial.starts();
    let base = starts[6];
    let longest = cchaha::text::Initial::MAX_BYTES;
    let len = |id| initial.template_len(id);
    let pairs = learn(words, base, n, longest, len, |done| progress(what, done, n));
    if pairs.len() < n {
        return Err(LearnError::Poor { asked: base as usize + n, made: base as usize + pairs.len() });
    }
    // How far the tokens of a class move, by the joins of the classes before it.
    let shifts: Vec<u32> =
        (0..7).map(|class| pairs.iter().filter(|pair| pair.class < class).count() as u32).collect();
    let moved = |id: u32| id + shifts[starts[1..6].iter().take_while(|&&start| id >= start).count()];
    for join in spec.joins.iter_mut().flatten() {
        (join.left, join.right) = (moved(join.left), moved(join.right));
    }
    let mut ends: Vec<u32> = (0..6).map(|class| starts[class + 1] + shifts[class]).collect();
    let mut ids: Vec<u32> = Vec::with_capacity(pairs.len());
    for &Pair { class, left, right, parts } in &pairs {
        let class = usize::from(class);
        let id = |id: u32| id.checked_sub(base).map_or_else(|| moved(id), |join| ids[join as usize]);
        let join = Join { left: id(left), right: id(right), parts };
        spec.joins[class - TokenClass::Structure as usize].push(join);
        ids.push(ends[class]);
        ends[class] += 1;
    }
    Ok(())
}

/// The words of the closed vocabulary: keywords that are frequent enough, and the `n` names that most documents' code is
/// made of, whatever the package.
fn closed_words(documents: &[Document], n: usize) -> Vec<String> {
    let all = HybridSpec { keywords: HybridSpec::all_keywords(), ..HybridSpec::default() };
    let mut splitter = Splitter::new(&all);
    let mut counts: HashMap<String, Count> = HashMap::new();
    let mut bytes = 0;
    // Every fourth document is enough to know.
    for document in documents.iter().step_by(4) {
        bytes += document.text.len();
        let package = document.package.as_str();
        splitter.split(document.text.as_bytes(), |class, key| {
            if !matches!(class, TokenClass::Structure | TokenClass::Identifier) {
                return;
            }
            let words = key.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
            for word in words.filter(|word| !word.is_empty()) {
                let word = String::from_utf8_lossy(word);
                let count = match counts.get_mut(&*word) {
                    Some(count) => count,
                    None => counts.entry(word.into_owned()).or_default(),
                };
                count.n += 1;
                if count.last != package {
                    count.packages += 1;
                    package.clone_into(&mut count.last);
                }
            }
        });
    }
    let keyword = |word: &String| all.keywords.contains(word);
    let frequent =
        |word: &&String| counts.get(*word).is_some_and(|count| count.n * BYTES_PER_KEYWORD >= bytes);
    let mut words: Vec<String> = all.keywords.iter().filter(frequent).cloned().collect();
    let closed = |word: &String, count: &Count| {
        !keyword(word)
            && (2..=16).contains(&word.len())
            && word.is_ascii()
            && !word.starts_with(|first: char| first.is_ascii_digit())
            && count.packages >= PACKAGES_PER_NAME
    };
    let mut names: Vec<(&String, &Count)> =
        counts.iter().filter(|&(word, count)| closed(word, count)).collect();
    names.sort_by_key(|&(word, count)| (std::cmp::Reverse(count.n), word));
    words.extend(names.into_iter().take(n).map(|(word, _)| word.clone()));
    words
}

/// How often a word occurs.
#[derive(Default)]
struct Count {
    n: usize,
    /// In how many packages, and the last of them.
    packages: usize,
    last: String,
}

fn bpe(documents: &[Document], n: usize, progress: Progress<'_>) -> Result<Metadata, LearnError> {
    let words = count(documents, progress, || {
        |text: &[u8], each: &mut dyn FnMut(u8, &[u8])| {
            split_words(BPE_RULE, text, &mut |word| each(0, word));
        }
    });
    let first = CONTROL.len() + 256;
    let Some(joins) = n.checked_sub(first) else {
        return Err(LearnError::Small { asked: n, least: first });
    };
    let symbol = |byte: u8| CONTROL.len() as u32 + u32::from(byte);
    let mut words: Vec<Word> = words
        .iter()
        .map(|((_, word), count)| {
            let ids: Vec<u32> = word.iter().map(|&byte| symbol(byte)).collect();
            Word::part(0, *count, &ids)
        })
        .collect();
    let pairs =
        learn(&mut words, first as u32, joins, usize::MAX, |_| 1, |done| progress("joins", done, joins));
    if pairs.len() < joins {
        return Err(LearnError::Poor { asked: n, made: first + pairs.len() });
    }
    let mut tokens: Vec<String> = CONTROL.iter().map(|&text| text.to_owned()).collect();
    tokens.extend((0..=255).map(|byte| to_printable(byte).to_string()));
    let mut merges = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        let [left, right] = [pair.left, pair.right].map(|id| &tokens[id as usize]);
        merges.push(format!("{left} {right}"));
        tokens.push(format!("{left}{right}"));
    }
    let kinds: Vec<i32> = (0..n).map(|id| if id < CONTROL.len() { 3 } else { 1 }).collect();
    let mut meta = Metadata::new();
    meta.set("tokenizer.ggml.model", "gpt2");
    meta.set("tokenizer.ggml.pre", BPE_RULE);
    meta.set("tokenizer.ggml.tokens", tokens.iter().collect::<Strings>());
    meta.set("tokenizer.ggml.token_type", kinds);
    meta.set("tokenizer.ggml.merges", merges.iter().collect::<Strings>());
    Ok(meta)
}

/// Counts spans with all cores; sorted, so that the order does not depend on threads.
fn count<S>(
    documents: &[Document],
    progress: Progress<'_>,
    splitter: impl Fn() -> S + Sync,
) -> Vec<((u8, Vec<u8>), u64)>
where
    S: FnMut(&[u8], &mut dyn FnMut(u8, &[u8])),
{
    type Counts = [HashMap<Vec<u8>, u64>; TokenClass::ALL.len()];
    let next = AtomicUsize::new(0);
    let total: Mutex<Counts> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut split = splitter();
        let mut counts = Counts::default();
        while let Some(document) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
            split(document.text.as_bytes(), &mut |class, key| {
                let counts = &mut counts[usize::from(class)];
                match counts.get_mut(key) {
                    Some(count) => *count += 1,
                    None => _ = counts.insert(key.to_vec(), 1),
                }
            });
        }
        let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (total, counts) in total.iter_mut().zip(counts) {
            for (key, count) in counts {
                *total.entry(key).or_insert(0) += count;
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            progress("documents", next.load(Ordering::Relaxed).min(documents.len()), documents.len());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    let total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let with_class = |(class, counts): (u8, HashMap<Vec<u8>, u64>)| {
        counts.into_iter().map(move |(key, count)| ((class, key), count))
    };
    let mut spans: Vec<_> = (0..).zip(total).flat_map(with_class).collect();
    spans.sort_unstable();
    spans
}
