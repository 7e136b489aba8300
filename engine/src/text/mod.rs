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
mod hybrid;
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
use hybrid::{Hybrid, Lexer, Place};
use merge::Merger;
use special::Trie;
use spm::Spm;
use vocab::Vocab;

pub use hybrid::{HybridSpec, Initial, Join, Splitter, TokenClass, part_ranges};
pub use stream::{Decoder, Stream};
pub use vocab::{FimTokens, Pieces, TokenKind, VocabModel, VocabSpec, to_printable};

/// Calls `emit` for every word that the pre-tokenizer `rule` (a name of `tokenizer.ggml.pre`) cuts `text` into; `false`
/// where there is no such rule. No merge crosses a word's edge.
pub fn split_words(rule: &str, text: &[u8], emit: &mut dyn FnMut(&[u8])) -> bool {
    let rule = pre::Rule::find(rule);
    if let Some(rule) = rule {
        rule.split(text, emit);
    }
    rule.is_some()
}

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

    /// `tokenizer.ggml.model` is neither byte-level BPE nor SentencePiece nor ours.
    #[error("tokenizer.ggml.model is \"{name}\", supported are gpt2, llama and cchaha; use another model")]
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

    /// A hybrid vocabulary that cannot be.
    #[error("cchaha.tokenizer {problem}; get the model again")]
    Hybrid { problem: String },

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
    Hybrid(Box<Hybrid>),
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
            VocabModel::Hybrid => {
                let hybrid = Hybrid::new(&spec.hybrid)?;
                hybrid.check(&vocab.text)?;
                vocab.reads_as(spec.hybrid.n_control, |id| hybrid.plain(id));
                Model::Hybrid(Box::new(hybrid))
            }
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
        self.encode_after([], text, special)
    }

    /// The tokens of `text` where it goes on after `before`, as a middle does after its prefix. Only a hybrid vocabulary
    /// makes a difference: there, line breaks are relative to the indentation so far, and words to what they stand in.
    pub fn encode_after(
        &self,
        before: impl AsRef<[u8]>,
        text: impl AsRef<[u8]>,
        special: Special,
    ) -> Vec<u32> {
        let text = text.as_ref();
        let mut place = Place::default();
        if let Model::Hybrid(hybrid) = &self.model {
            hybrid.skip(&mut place.now, before.as_ref());
        }
        let mut scratch = self.lock_scratch().pop().unwrap_or_default();
        let mut out = Vec::with_capacity(text.len() / 3);
        let trie = match special {
            Special::Parse => &self.special,
            Special::Plain => &self.user_defined,
        };
        let (mut at, mut prefix) = (0, self.add_space_prefix);
        while let Some((start, end, id)) = trie.find(text, at) {
            if at < start {
                self.encode_words(&text[at..start], prefix, &mut place.now, &mut scratch, &mut out);
            }
            out.push(id);
            place.control(id, &self.fim);
            at = end;
            prefix = self.add_space_prefix && self.is_control(id);
        }
        if at < text.len() {
            self.encode_words(&text[at..], prefix, &mut place.now, &mut scratch, &mut out);
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

    /// The tokens of a whole text without specials, encoded piece by piece between these places (ascending, in bytes), as
    /// if somebody had stopped there and gone on. Prompts end anywhere; a model that has seen such cuts goes on from any.
    pub fn encode_cut(&self, text: impl AsRef<[u8]>, cuts: &[usize]) -> Vec<u32> {
        let text = text.as_ref();
        let mut lexer = Lexer::default();
        let mut scratch = self.lock_scratch().pop().unwrap_or_default();
        let mut out = Vec::with_capacity(text.len() / 3);
        let mut start = 0;
        for end in cuts.iter().copied().chain([text.len()]) {
            let piece = text.get(start..end).unwrap_or_default();
            if !piece.is_empty() {
                self.encode_words(
                    piece,
                    self.add_space_prefix && start == 0,
                    &mut lexer,
                    &mut scratch,
                    &mut out,
                );
                start = end;
            }
        }
        self.lock_scratch().push(scratch);
        out
    }

    fn encode_words(
        &self,
        text: &[u8],
        prefix: bool,
        lexer: &mut Lexer,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        match &self.model {
            Model::Bpe(bpe) => bpe.encode(&self.vocab, text, scratch, out),
            Model::Spm(spm) => spm.encode(&self.vocab, text, prefix, scratch, out),
            Model::Hybrid(hybrid) => hybrid.encode(lexer, text, scratch, out),
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
        let mut bytes = Vec::with_capacity(ids.len() * 3);
        ids.iter().for_each(|&id| bytes.extend_from_slice(stream.bytes_of(id)));
        bytes
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

    /// Decodes what comes after `before` as it comes, control tokens only if `special`.
    pub fn stream_after(&self, before: &[u32], special: bool) -> Stream<'_> {
        let mut stream = Stream::new(self, special, false);
        if self.hybrid().is_some() {
            before.iter().for_each(|&id| _ = stream.bytes_of(id));
        }
        stream
    }

    /// The class of a token of a hybrid vocabulary; `None` for other vocabularies and past the end.
    pub fn class(&self, id: u32) -> Option<TokenClass> {
        self.hybrid().filter(|hybrid| (id as usize) < hybrid.len()).map(|hybrid| hybrid.class(id))
    }

    fn hybrid(&self) -> Option<&Hybrid> {
        match &self.model {
            Model::Hybrid(hybrid) => Some(hybrid),
            Model::Bpe(_) | Model::Spm(_) => None,
        }
    }

    /// The bytes a token stands for; those of control tokens only if `special`. Those of a line break of a hybrid
    /// vocabulary depend on the text before, see [`Tokenizer::stream`]; here they are what they are where nothing is
    /// indented.
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
            Model::Hybrid(_) => VocabModel::Hybrid,
        };
        f.debug_struct("Tokenizer").field("model", &model).field("vocab_len", &self.vocab_len()).finish()
    }
}

/// What encoding needs besides the tables.
#[derive(Default)]
struct Scratch {
    cache: WordCache,
    merger: Merger,
    /// Text with its spaces marked, or structure.
    escaped: Vec<u8>,
    /// Parts of neighbouring spans.
    run: Vec<u32>,
}

impl Scratch {
    /// Appends the ids of `word`: as they were before, or what `encode` appends.
    #[inline]
    fn through_cache(
        &mut self,
        class: u8,
        word: &[u8],
        out: &mut Vec<u32>,
        encode: impl FnOnce(&mut Merger, &mut Vec<u32>),
    ) {
        let (known, place) = self.cache.get(class, word);
        if let Some(ids) = known {
            return out.extend_from_slice(ids);
        }
        let from = out.len();
        encode(&mut self.merger, out);
        self.cache.put(place, word, &out[from..]);
    }
}
