//! Text to tokens and back.
//!
//! ```text
//! text --special tokens cut out--> stretches --pre-tokenizer--> words --merges--> ids
//! ids --bytes of each--> bytes --whole characters--> text
//! ```
//!
//! [`Tokenizer`] does both for byte-level BPE and SentencePiece vocabularies as GGUF files hold them. Encoding
//! takes any bytes and loses none of them: decoding the ids gives the bytes back. (Three exceptions. For
//! SentencePiece, U+2581 in a text reads as a space, and a file may ask for extra spaces to be removed. A byte
//! that has no token becomes U+FFFD, or SentencePiece's unknown token: some vocabularies lack a few control
//! characters, and many the bytes that UTF-8 never uses.) Text is not normalized, also where a model's publisher
//! used NFC: code is kept as it is.

mod bpe;
mod cache;
mod from_gguf;
mod merge;
mod pre;
mod roles;
mod special;
mod spm;
mod stream;
mod unicode;
mod unicode_table;
mod vocab;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use bpe::Bpe;
use cache::WordCache;
use merge::Merger;
use special::Trie;
use spm::Spm;
use vocab::Vocab;

pub use stream::Stream;
pub use vocab::{FimTokens, Pieces, TokenKind, VocabModel, VocabSpec};

/// Whether text may name control tokens such as `<|im_end|>`.
///
/// Tokens of [`TokenKind::UserDefined`] are found in text in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// What looks like a control token is that token: for templates, never for what a user wrote.
    Parse,
    /// It is text like any other.
    Plain,
}

/// Why a vocabulary cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum TokenizerError {
    /// A `tokenizer.ggml.*` key is missing or has another type than the one needed.
    #[error(transparent)]
    Gguf(#[from] cchaha_gguf::Error),

    /// `tokenizer.ggml.model` is neither byte-level BPE nor SentencePiece.
    #[error("tokenizer.ggml.model is \"{name}\", supported are gpt2 and llama; use another model")]
    UnknownModel { name: String },

    /// `tokenizer.ggml.pre` names no known rule.
    #[error("tokenizer.ggml.pre is \"{name}\", supported are {supported}; use another model")]
    UnknownPre { name: String, supported: String },

    /// No tokens, or more than ids.
    #[error("tokenizer.ggml.tokens has {tokens} entries, expected 1 to 4294967294; get the model again")]
    Size { tokens: usize },

    /// A list that goes with the tokens is shorter or longer than theirs.
    #[error(
        "tokenizer.ggml.{list} has {len} entries and tokenizer.ggml.tokens {tokens}, expected as many; get the model again"
    )]
    Length { list: &'static str, len: usize, tokens: usize },

    /// SentencePiece without scores.
    #[error("tokenizer.ggml.scores is missing, which a llama tokenizer needs; convert the model again")]
    NoScores,

    /// A score is not a number.
    #[error("tokenizer.ggml.scores: entry {id} is not a number; get the model again")]
    Score { id: usize },

    /// A key names a token that does not exist.
    #[error("{key} is {id}, but the vocabulary ends at {}; get the model again", tokens - 1)]
    Id { key: &'static str, id: u32, tokens: usize },

    /// A merge that cannot be.
    #[error("tokenizer.ggml.merges: entry {rank}, \"{text}\", {problem}; convert the model again")]
    Merge { rank: u32, text: String, problem: &'static str },

    /// SentencePiece could not encode some text.
    #[error(
        "tokenizer.ggml.tokens has no token <0x{byte:02X}> and no unknown token; convert the model again"
    )]
    MissingByte { byte: u8 },
}

/// A vocabulary with the rules that turn text into its tokens and back. Ids are `u32`, below
/// [`Tokenizer::vocab_len`]; what is asked of higher ids is answered as for a token without text.
///
/// Encoding is linear in the text, up to a logarithm for words of many bytes, and may be done by many threads.
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    /// Tokens found in any text.
    user_defined: Trie,
    /// These and the control tokens.
    special: Trie,
    /// Ids that end a generation, ascending.
    eog: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    unk: Option<u32>,
    pad: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    fim: FimTokens,
    /// Buffers not in use now; one per thread that encodes at the same time.
    scratch: Mutex<Vec<Scratch>>,
}

enum Model {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
}

impl Tokenizer {
    /// Checks a vocabulary and builds its tables.
    pub fn new(mut spec: VocabSpec) -> Result<Tokenizer, TokenizerError> {
        let has_types = spec.types.is_some();
        let mut vocab = Vocab::new(&mut spec)?;
        let eog = roles::assign(&mut vocab, &mut spec, has_types);
        let model = match spec.model {
            VocabModel::Bpe => {
                let rule = pre::Rule::find(&spec.pre).ok_or_else(|| TokenizerError::UnknownPre {
                    name: spec.pre.clone(),
                    supported: pre::Rule::names(),
                })?;
                Model::Bpe(Box::new(Bpe::new(&vocab, rule, &spec.merges)?))
            }
            VocabModel::Spm => Model::Spm(Box::new(Spm::new(&vocab, &spec)?)),
        };
        let trie = |kinds: &[TokenKind]| {
            let tokens = vocab.text.iter().zip(0..).filter(|&(_, id)| kinds.contains(&vocab.kind(id)));
            Trie::new(tokens)
        };
        Ok(Tokenizer {
            user_defined: trie(&[TokenKind::UserDefined]),
            special: trie(&[TokenKind::UserDefined, TokenKind::Control, TokenKind::Unknown]),
            eog,
            bos: spec.bos,
            eos: spec.eos,
            eot: spec.eot,
            unk: spec.unk,
            pad: spec.pad,
            add_bos: spec.add_bos && spec.bos.is_some(),
            add_eos: spec.add_eos && spec.eos.is_some(),
            add_space_prefix: spec.model == VocabModel::Spm && spec.add_space_prefix,
            fim: spec.fim,
            scratch: Mutex::default(),
            model,
            vocab,
        })
    }

    /// The tokens of `text`, without BOS or EOS.
    pub fn encode(&self, text: impl AsRef<[u8]>, special: Special) -> Vec<u32> {
        let text = text.as_ref();
        let mut scratch = self.lock_scratch().pop().unwrap_or_default();
        let mut out = Vec::with_capacity(text.len() / 3);
        let trie = match special {
            Special::Parse => &self.special,
            Special::Plain => &self.user_defined,
        };
        let (mut at, mut prefix) = (0, self.add_space_prefix);
        while let Some((start, end, id)) = trie.find(text, at) {
            if at < start {
                self.encode_words(&text[at..start], prefix, &mut scratch, &mut out);
            }
            out.push(id);
            at = end;
            prefix = self.add_space_prefix && self.is_control(id);
        }
        if at < text.len() {
            self.encode_words(&text[at..], prefix, &mut scratch, &mut out);
        }
        scratch.merger.shrink();
        scratch.escaped.shrink_to(1 << 16);
        self.lock_scratch().push(scratch);
        out
    }

    /// The tokens of a whole prompt: [`Tokenizer::encode`], with BOS and EOS around where the model wants them.
    pub fn encode_prompt(&self, text: impl AsRef<[u8]>, special: Special) -> Vec<u32> {
        let mut ids: Vec<u32> = self.bos.filter(|_| self.add_bos).into_iter().collect();
        ids.extend(self.encode(text, special));
        ids.extend(self.eos.filter(|_| self.add_eos));
        ids
    }

    fn encode_words(&self, text: &[u8], prefix: bool, scratch: &mut Scratch, out: &mut Vec<u32>) {
        match &self.model {
            Model::Bpe(bpe) => bpe.encode(&self.vocab, text, scratch, out),
            Model::Spm(spm) => spm.encode(&self.vocab, text, prefix, scratch, out),
        }
    }

    fn lock_scratch(&self) -> std::sync::MutexGuard<'_, Vec<Scratch>> {
        // Nothing is left half done in it by a panic elsewhere.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a text from its tokens, those of control tokens only if `special`. Undoes
    /// [`Tokenizer::encode`] of a whole text: a space that it put at the start is taken away.
    pub fn decode(&self, ids: &[u32], special: bool) -> Vec<u8> {
        let mut stream = Stream::new(self, special, true);
        ids.iter().flat_map(|&id| stream.bytes_of(id)).copied().collect()
    }

    /// Decodes tokens that continue a text as they come, control tokens only if `special`. A space before the
    /// first word is kept.
    pub fn stream(&self, special: bool) -> Stream<'_> {
        Stream::new(self, special, false)
    }

    /// Decodes tokens of a whole text as they come, as [`Tokenizer::decode`] does.
    pub fn stream_from_start(&self, special: bool) -> Stream<'_> {
        Stream::new(self, special, true)
    }

    /// The bytes a token stands for; those of control tokens only if `special`.
    pub fn piece(&self, id: u32, special: bool) -> &[u8] {
        if self.is_control(id) && !special {
            &[]
        } else {
            self.vocab.bytes.get(id as usize).unwrap_or_default()
        }
    }

    /// The bytes a token stands for; none for control tokens.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.piece(id, false)
    }

    /// The id of the token that the file writes as `text`: `<|im_end|>`, or `Ġthe` or `▁the` for ` the`.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.vocab.id_of(text.as_bytes())
    }

    /// How many tokens there are.
    pub fn vocab_len(&self) -> usize {
        self.vocab.len()
    }

    /// What a token is; [`TokenKind::Unused`] past the end of the vocabulary.
    pub fn kind(&self, id: u32) -> TokenKind {
        self.vocab.kind(id)
    }

    /// Whether a token is structure and not text.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.kind(id), TokenKind::Control | TokenKind::Unknown)
    }

    /// Whether a token ends a generation: end of text, of a turn or of a message, or the start of another file.
    pub fn is_eog(&self, id: u32) -> bool {
        self.eog.binary_search(&id).is_ok()
    }

    /// The tokens that end a generation, ascending.
    pub fn eog_ids(&self) -> &[u32] {
        &self.eog
    }

    /// Beginning of the sequence.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End of the sequence.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// End of a turn, where the file names one.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// Stands for what has no token.
    pub fn unk(&self) -> Option<u32> {
        self.unk
    }

    /// Fills up a batch.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Whether prompts begin with BOS.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether prompts end with EOS.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether text begins with a space that it did not have.
    pub fn add_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// The tokens that frame fill-in-the-middle prompts.
    pub fn fim(&self) -> &FimTokens {
        &self.fim
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let model = match self.model {
            Model::Bpe(_) => VocabModel::Bpe,
            Model::Spm(_) => VocabModel::Spm,
        };
        f.debug_struct("Tokenizer").field("model", &model).field("vocab_len", &self.vocab_len()).finish()
    }
}

/// What encoding needs besides the tables.
#[derive(Default)]
struct Scratch {
    cache: WordCache,
    merger: Merger,
    /// Text with its spaces marked.
    escaped: Vec<u8>,
}

impl Scratch {
    /// Appends the ids of `word`: as they were before, or what `encode` appends.
    #[inline]
    fn through_cache(
        &mut self,
        word: &[u8],
        out: &mut Vec<u32>,
        encode: impl FnOnce(&mut Merger, &mut Vec<u32>),
    ) {
        let (known, place) = self.cache.get(word);
        if let Some(ids) = known {
            return out.extend_from_slice(ids);
        }
        let from = out.len();
        encode(&mut self.merger, out);
        self.cache.put(place, word, &out[from..]);
    }
}
