//! The vocabulary: what a file says about its tokens, and the tables between ids, text and bytes.

use std::hash::BuildHasher;

use super::TokenizerError;
use super::hybrid::HybridSpec;

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabModel {
    /// Byte-level BPE with ranked merges; `tokenizer.ggml.model` is `gpt2`.
    Bpe,
    /// SentencePiece BPE with scores and byte fallback; `tokenizer.ggml.model` is `llama`.
    Spm,
    /// Our own, with a vocabulary for each class of spans; `tokenizer.ggml.model` is `cchaha`.
    Hybrid,
}

/// What a token is, by its `tokenizer.ggml.token_type` number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Text (1, and whatever has no known number).
    Normal,
    /// Stands for what has no token (2).
    Unknown,
    /// Marks structure; never made from text unless the caller asks (3).
    Control,
    /// Text that is always one token (4).
    UserDefined,
    /// A hole in the table (5).
    Unused,
    /// A single byte, written `<0xNN>` (6).
    Byte,
}

impl TokenKind {
    fn from_type(number: i32) -> TokenKind {
        match number {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }
}

/// Ids of the tokens that frame fill-in-the-middle prompts; `None` where the model has no such token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FimTokens {
    /// Before the text that precedes the hole.
    pub prefix: Option<u32>,
    /// Before the text that follows the hole.
    pub suffix: Option<u32>,
    /// Where the model starts to write.
    pub middle: Option<u32>,
    /// Fills up a context.
    pub pad: Option<u32>,
    /// Before a repository's name.
    pub repo: Option<u32>,
    /// Between files.
    pub sep: Option<u32>,
}

/// Everything a model file says about its tokenizer. Token `i` is the `i`-th of `tokens`.
#[derive(Clone, Debug)]
pub struct VocabSpec {
    /// How text becomes tokens.
    pub model: VocabModel,
    /// Name of the pre-tokenizer rule, for [`VocabModel::Bpe`].
    pub pre: String,
    /// Tokens as the file writes them: byte-level BPE in GPT-2's printable alphabet, SentencePiece with U+2581.
    pub tokens: Pieces,
    /// One per token; a higher score merges first. For [`VocabModel::Spm`].
    pub scores: Option<Vec<f32>>,
    /// One per token, see [`TokenKind`]; all normal where absent.
    pub types: Option<Vec<i32>>,
    /// `left right` pairs in order of rank. For [`VocabModel::Bpe`].
    pub merges: Pieces,
    /// Beginning of the sequence.
    pub bos: Option<u32>,
    /// End of the sequence.
    pub eos: Option<u32>,
    /// End of a turn.
    pub eot: Option<u32>,
    /// End of a message.
    pub eom: Option<u32>,
    /// Stands for what has no token.
    pub unk: Option<u32>,
    /// Fills up a batch.
    pub pad: Option<u32>,
    /// Whether prompts begin with `bos`.
    pub add_bos: bool,
    /// Whether prompts end with `eos`.
    pub add_eos: bool,
    /// Whether text begins with a space that it did not have. For [`VocabModel::Spm`].
    pub add_space_prefix: bool,
    /// Whether runs of spaces become one, and those at the ends none. For [`VocabModel::Spm`].
    pub remove_extra_whitespaces: bool,
    /// What makes the vocabulary. For [`VocabModel::Hybrid`].
    pub hybrid: HybridSpec,
    /// Fill-in-the-middle tokens the file names by id; the others are looked up by their well-known names.
    pub fim: FimTokens,
}

impl VocabSpec {
    /// A vocabulary of `tokens` with the defaults of `model`: a space prefix for SentencePiece, nothing else.
    pub fn new(model: VocabModel, tokens: Pieces) -> VocabSpec {
        VocabSpec {
            model,
            pre: "default".to_owned(),
            tokens,
            scores: None,
            types: None,
            merges: Pieces::default(),
            bos: None,
            eos: None,
            eot: None,
            eom: None,
            unk: None,
            pad: None,
            add_bos: false,
            add_eos: false,
            add_space_prefix: model == VocabModel::Spm,
            remove_extra_whitespaces: false,
            hybrid: HybridSpec::default(),
            fim: FimTokens::default(),
        }
    }
}

/// A list of byte strings in one allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    /// Adds one at the end.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Piece `i`; `None` past the end.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.bytes[start..end])
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i).unwrap_or_default())
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Pieces {
    fn from_iter<I: IntoIterator<Item = T>>(pieces: I) -> Pieces {
        let mut list = Pieces::default();
        pieces.into_iter().for_each(|piece| list.push(piece.as_ref()));
        list
    }
}

/// Tables over all tokens.
pub(super) struct Vocab {
    /// As the file writes them.
    pub(super) text: Pieces,
    /// As they read.
    pub(super) bytes: Pieces,
    pub(super) kinds: Vec<TokenKind>,
    by_text: PieceMap,
}

impl Vocab {
    /// Takes the tokens and their types out of `spec`, and checks the lengths of its lists.
    pub(super) fn new(spec: &mut VocabSpec) -> Result<Vocab, TokenizerError> {
        let text = std::mem::take(&mut spec.tokens);
        // Ids are u32, and the last one is kept free to mean "no token".
        if text.is_empty() || text.len() >= NO_TOKEN as usize {
            return Err(TokenizerError::Size { tokens: text.len() });
        }
        for (list, len) in [
            ("scores", spec.scores.as_ref().map(Vec::len)),
            ("token_type", spec.types.as_ref().map(Vec::len)),
        ] {
            if let Some(len) = len.filter(|&len| len != text.len()) {
                return Err(TokenizerError::Length { list, len, tokens: text.len() });
            }
        }
        let kinds: Vec<TokenKind> = match spec.types.take() {
            Some(types) => types.into_iter().map(TokenKind::from_type).collect(),
            None => vec![TokenKind::Normal; text.len()],
        };
        let bytes = text.iter().zip(&kinds).map(|(piece, &kind)| reads_as(spec.model, piece, kind)).collect();
        let by_text = PieceMap::new(&text, |_| true);
        Ok(Vocab { text, bytes, kinds, by_text })
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// The tokens from `first` on stand for other bytes than their text says.
    pub(super) fn reads_as(&mut self, first: u32, bytes: impl Fn(u32) -> Vec<u8>) {
        let own = self.bytes.iter().take(first as usize).map(<[u8]>::to_vec);
        self.bytes = own.chain((first..self.len() as u32).map(bytes)).collect();
    }

    pub(super) fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused)
    }

    /// Makes a token a control token, which reads as its text.
    pub(super) fn mark_control(&mut self, id: u32) {
        if let Some(kind) = self.kinds.get_mut(id as usize) {
            *kind = TokenKind::Control;
        }
    }

    /// Id of the token that the file writes as `text`.
    pub(super) fn id_of(&self, text: &[u8]) -> Option<u32> {
        self.by_text.get(&self.text, text)
    }

    /// Ids of the single-byte tokens, [`NO_TOKEN`] where there is none.
    pub(super) fn byte_ids(&self) -> [u32; 256] {
        let mut ids = [NO_TOKEN; 256];
        for (id, (bytes, &kind)) in (0..).zip(self.bytes.iter().zip(&self.kinds)) {
            if let (&[byte], TokenKind::Normal | TokenKind::Byte) = (bytes, kind) {
                let slot = &mut ids[usize::from(byte)];
                // A byte token's own spelling, `<0x41>`, goes before the letter `A`.
                if *slot == NO_TOKEN || kind == TokenKind::Byte {
                    *slot = id;
                }
            }
        }
        ids
    }
}

/// No such token.
pub(super) const NO_TOKEN: u32 = u32::MAX;

/// U+2581, which SentencePiece writes for a space.
pub(super) const SPACE_MARK: &str = "\u{2581}";

/// The bytes a token stands for in text.
fn reads_as(model: VocabModel, piece: &[u8], kind: TokenKind) -> Vec<u8> {
    match (kind, model) {
        (TokenKind::Unused, _) => Vec::new(),
        (TokenKind::Byte, _) => byte_piece(piece).map_or_else(|| piece.to_vec(), |byte| vec![byte]),
        (TokenKind::Normal, VocabModel::Bpe | VocabModel::Hybrid) => {
            from_printable(piece).unwrap_or_else(|| piece.to_vec())
        }
        (TokenKind::Normal, VocabModel::Spm) => {
            String::from_utf8_lossy(piece).replace(SPACE_MARK, " ").into_bytes()
        }
        (TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown, _) => piece.to_vec(),
    }
}

/// The byte of `<0xNN>`.
fn byte_piece(piece: &[u8]) -> Option<u8> {
    let hex = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if hex.len() != 2 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

/// Bytes that are not visible Latin-1, in the order of the characters that stand for them.
static HIDDEN: [u8; 68] = {
    let (mut hidden, mut n, mut byte) = ([0; 68], 0, 0_u8);
    loop {
        if !matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) {
            hidden[n] = byte;
            n += 1;
        }
        if byte == u8::MAX {
            break hidden;
        }
        byte += 1;
    }
};

/// A byte in GPT-2's printable alphabet: visible Latin-1 characters are themselves, and the other bytes, in ascending
/// order, are U+0100, U+0101 and so on (Radford et al. 2019, `bytes_to_unicode`).
pub fn to_printable(byte: u8) -> char {
    match HIDDEN.binary_search(&byte) {
        Ok(i) => char::from_u32(0x100 + i as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        Err(_) => char::from(byte),
    }
}

/// Bytes of a piece in GPT-2's printable alphabet.
fn from_printable(piece: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(piece).ok()?;
    text.chars()
        .map(|c| match c as u32 {
            code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
            code => HIDDEN.get(code.checked_sub(0x100)? as usize).copied(),
        })
        .collect()
}

/// Ids by the bytes of their pieces; the pieces stay where they are and come with every call.
pub(super) struct PieceMap {
    /// At their hash's place or after it; a power of two long, at most half full.
    slots: Vec<Slot>,
    seed: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    /// The upper half of the hash, so that hardly any other piece needs to be looked at.
    tag: u32,
    /// [`NO_TOKEN`] in an empty slot.
    id: u32,
}

impl PieceMap {
    /// A map of the pieces whose id `keep` accepts. Of equal pieces, the first wins.
    pub(super) fn new(pieces: &Pieces, keep: impl Fn(u32) -> bool) -> PieceMap {
        let ids: Vec<u32> = (0..pieces.len() as u32).filter(|&id| keep(id)).collect();
        // A seed of its own per map, so that no file can be made to collide.
        let seed = std::hash::RandomState::new().hash_one(0);
        let empty = Slot { tag: 0, id: NO_TOKEN };
        let mut map = PieceMap { slots: vec![empty; (ids.len() * 2).next_power_of_two()], seed };
        for id in ids {
            let (slot, tag) = map.slot(pieces, pieces.get(id as usize).unwrap_or_default());
            if map.slots[slot].id == NO_TOKEN {
                map.slots[slot] = Slot { tag, id };
            }
        }
        map
    }

    #[inline]
    pub(super) fn get(&self, pieces: &Pieces, piece: &[u8]) -> Option<u32> {
        let (slot, _) = self.slot(pieces, piece);
        Some(self.slots[slot].id).filter(|&id| id != NO_TOKEN)
    }

    /// Where `piece` is, or where it would go, and its tag.
    #[inline]
    fn slot(&self, pieces: &Pieces, piece: &[u8]) -> (usize, u32) {
        let mask = self.slots.len() - 1;
        let hash = hash(piece, self.seed);
        let tag = (hash >> 32) as u32;
        let mut slot = hash as usize & mask;
        loop {
            let Slot { tag: other, id } = self.slots[slot];
            if id == NO_TOKEN || other == tag && pieces.get(id as usize) == Some(piece) {
                return (slot, tag);
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// A hash of a short byte string: eight bytes at a time through a folded 64 x 64-bit product.
#[inline]
pub(super) fn hash(bytes: &[u8], seed: u64) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let fold = |a: u64| {
        let product = u128::from(a) * u128::from(ODD);
        (product >> 64) as u64 ^ product as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let state =
        words.iter().fold(seed ^ bytes.len() as u64, |state, &word| fold(state ^ u64::from_le_bytes(word)));
    fold(state ^ rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_alphabet_covers_every_byte_once() {
        let mut seen = [false; 256];
        for code in (0x21..0x180).filter(|code| !matches!(code, 0x7F..=0xA0 | 0xAD)) {
            let c = char::from_u32(code).expect("no surrogates here");
            if let Some(bytes) = from_printable(c.to_string().as_bytes()) {
                assert_eq!(to_printable(bytes[0]), c);
                assert!(!std::mem::replace(&mut seen[usize::from(bytes[0])], true), "{c:?}");
            }
        }
        assert!(seen.iter().all(|&seen| seen));
        assert_eq!(from_printable("Ġhé".as_bytes()), Some(vec![b' ', b'h', 0xE9]));
        assert_eq!(from_printable("a b".as_bytes()), None);
        assert_eq!(from_printable("｜".as_bytes()), None);
    }

    #[test]
    fn byte_pieces_are_exactly_two_hex_digits() {
        assert_eq!(byte_piece(b"<0x0A>"), Some(10));
        assert_eq!(byte_piece(b"<0xfF>"), Some(255));
        for wrong in [&b"<0x>"[..], b"<0xA>", b"<0x+A>", b"<0x100>", b"0x0A", b"<0x0A", b"<0xG0>"] {
            assert_eq!(byte_piece(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn piece_map_finds_what_it_keeps() {
        let pieces: Pieces = (0..1000).map(|i| format!("piece {i}")).chain(["piece 7".to_owned()]).collect();
        let map = PieceMap::new(&pieces, |id| id % 3 != 0);
        for i in 0..1000 {
            let expected = (i % 3 != 0).then_some(i);
            assert_eq!(map.get(&pieces, format!("piece {i}").as_bytes()), expected);
        }
        assert_eq!(map.get(&pieces, b"piece"), None);
        assert_eq!(PieceMap::new(&Pieces::default(), |_| true).get(&pieces, b"x"), None);
    }
}
