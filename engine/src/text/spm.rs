//! SentencePiece BPE (Kudo and Richardson 2018): a space is U+2581, neighbours merge by the score of what they
//! make, and what has no token becomes its bytes, `<0xNN>`.

use super::merge::{Merge, Symbol};
use super::unicode::utf8_len;
use super::vocab::{NO_TOKEN, PieceMap, SPACE_MARK, TokenKind, Vocab};
use super::{Scratch, TokenizerError, VocabSpec};

/// The tables of a SentencePiece vocabulary.
pub(super) struct Spm {
    /// Tokens that text may become by itself: no control or byte tokens.
    words: PieceMap,
    /// Rank of each token: low for a high score.
    ranks: Vec<u32>,
    byte_ids: [u32; 256],
    /// What stands for a byte that has no token.
    unk: Option<u32>,
    /// Longest token, in bytes.
    max_len: u32,
    /// `joins[b]`: some token has a space after byte `b`, so a word need not end there.
    joins: [bool; 256],
    remove_extra_whitespaces: bool,
}

impl Spm {
    pub(super) fn new(vocab: &Vocab, spec: &VocabSpec) -> Result<Spm, TokenizerError> {
        let scores = spec.scores.as_ref().ok_or(TokenizerError::NoScores)?;
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            return Err(TokenizerError::Score { id });
        }
        let byte_ids = vocab.byte_ids();
        if let Some(byte) = (0..=255_u8).find(|&byte| byte_ids[usize::from(byte)] == NO_TOKEN)
            && spec.unk.is_none()
        {
            return Err(TokenizerError::MissingByte { byte });
        }
        let is_word = |id: u32| vocab.kind(id) == TokenKind::Normal;
        let mut joins = [false; 256];
        let mut max_len = 0;
        for text in vocab.text.iter().zip(0..).filter_map(|(text, id)| is_word(id).then_some(text)) {
            max_len = max_len.max(text.len());
            let mark = SPACE_MARK.as_bytes();
            for at in 1..text.len() {
                if text[at..].starts_with(mark) && !text[..at].ends_with(mark) {
                    joins[usize::from(text[at - 1])] = true;
                }
            }
        }
        Ok(Spm {
            words: PieceMap::new(&vocab.text, is_word),
            ranks: scores.iter().map(|&score| rank(score)).collect(),
            byte_ids,
            unk: spec.unk,
            max_len: u32::try_from(max_len).unwrap_or(u32::MAX),
            joins,
            remove_extra_whitespaces: spec.remove_extra_whitespaces,
        })
    }

    /// Appends the ids of `text`, with a space before it if `prefix`.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &[u8],
        prefix: bool,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        let mut escaped = std::mem::take(&mut scratch.escaped);
        escaped.clear();
        if prefix {
            escaped.extend_from_slice(SPACE_MARK.as_bytes());
        }
        self.escape(text, &mut escaped);
        let mut rest = &escaped[..];
        while !rest.is_empty() {
            let (word, after) = rest.split_at(self.word_len(rest));
            scratch.through_cache(0, word, out, |merger, out| {
                merger.symbols.clear();
                let mut at = 0;
                while at < word.len() {
                    // A stray byte is a character of its own.
                    let len = utf8_len(&word[at..]).max(1);
                    let id = self.words.get(&vocab.text, &word[at..at + len]).unwrap_or(NO_TOKEN);
                    merger.symbols.push(Symbol { start: at as u32, len: len as u32, id });
                    at += len;
                }
                merger.merge(|left, right| self.merge(vocab, word, left, right));
                for symbol in &merger.symbols {
                    match symbol.id {
                        NO_TOKEN => {
                            let bytes = &word[symbol.start as usize..][..symbol.len as usize];
                            let ids = bytes.iter().map(|&byte| self.byte_ids[usize::from(byte)]);
                            out.extend(ids.filter_map(|id| if id == NO_TOKEN { self.unk } else { Some(id) }));
                        }
                        id => out.push(id),
                    }
                }
            });
            rest = after;
        }
        scratch.escaped = escaped;
    }

    /// Appends `text` with its spaces marked.
    fn escape(&self, text: &[u8], escaped: &mut Vec<u8>) {
        let mut at_space = true;
        let text = if self.remove_extra_whitespaces { trim_end(text) } else { text };
        for &byte in text {
            let is_space = byte == b' ';
            if !is_space {
                escaped.push(byte);
            } else if !(self.remove_extra_whitespaces && at_space) {
                escaped.extend_from_slice(SPACE_MARK.as_bytes());
            }
            at_space = is_space;
        }
    }

    /// Length of the shortest start of `text` that no token reaches across.
    fn word_len(&self, text: &[u8]) -> usize {
        let mark = SPACE_MARK.as_bytes();
        let mut at = 1;
        while at < text.len() {
            let edge = text[at] == mark[0]
                && text[at..].starts_with(mark)
                && !text[..at].ends_with(mark)
                && !self.joins[usize::from(text[at - 1])];
            // Places in a word are u32, and no token is that long.
            if edge || at >= 1 << 30 {
                break;
            }
            at += 1;
        }
        at
    }

    #[inline]
    fn merge(&self, vocab: &Vocab, word: &[u8], left: Symbol, right: Symbol) -> Merge {
        let len = left.len + right.len;
        if len > self.max_len {
            return Merge::NEVER;
        }
        match self.words.get(&vocab.text, &word[left.start as usize..][..len as usize]) {
            Some(id) => Merge { rank: self.ranks[id as usize], id },
            None => Merge::NEVER,
        }
    }
}

/// A number that is lower for a higher score; scores are no NaN, so it is not that of [`Merge::NEVER`].
fn rank(score: f32) -> u32 {
    // The bits of floats ascend with the positive ones and descend with the negative ones. Adding 0 makes -0 a 0.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

/// `text` without the spaces at its end.
fn trim_end(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_descend_with_scores() {
        let scores = [f32::INFINITY, 1e30, 1.0, 1e-40, 0.0, -1e-40, -1.0, -1000.0, -1e30, f32::NEG_INFINITY];
        for pair in scores.windows(2) {
            assert!(rank(pair[0]) < rank(pair[1]), "{pair:?}");
        }
        assert_eq!(rank(0.0), rank(-0.0));
        assert!(rank(f32::NEG_INFINITY) < Merge::NEVER.rank);
    }
}
