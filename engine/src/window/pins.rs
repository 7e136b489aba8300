//! Which positions are pinned: lines in the order of a prior, as long as there is room.

use std::collections::HashMap;

use super::Prior;
use super::reader::Text;
use crate::code::{Kind, Line};

/// Positions of at most `room` tokens before position `before`, whole lines, most wanted first.
pub(super) fn pins(text: &Text, prior: Prior, recent: usize, before: usize, room: usize) -> Vec<usize> {
    let lines = text.scanner.lines();
    let mut wanted: Vec<usize> = Vec::new();
    if !matches!(prior, Prior::Nothing | Prior::Random) {
        for scope in text.scanner.open_scopes().iter().rev() {
            let header = &text.scanner.scopes()[scope.0 as usize].header;
            wanted.extend(header.start as usize..header.end as usize);
        }
    }
    let of_kind = |kind: Kind| move |line: &(usize, &Line)| line.1.kind == kind;
    match prior {
        Prior::Nothing | Prior::Open => {}
        Prior::Headers => {
            wanted.extend(lines.iter().enumerate().filter(of_kind(Kind::Import)).map(|(i, _)| i));
            wanted.extend(lines.iter().enumerate().filter(of_kind(Kind::Header)).map(|(i, _)| i).rev());
        }
        Prior::Names => {
            let mut scored = Vec::new();
            let words = Words::of(text, recent);
            for (i, _) in lines.iter().enumerate().filter(|(_, line)| line.pinned()) {
                let score = words.score(text.line_words(i));
                if score > 0.0 {
                    scored.push((score, i));
                }
            }
            scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
            wanted.extend(scored.into_iter().map(|(_, i)| i));
        }
        Prior::Random => {
            let mut all: Vec<usize> = (0..lines.len()).collect();
            // Knuth's multiplicative hash spreads line numbers; the same lines stay chosen.
            all.sort_by_key(|&i| (i as u32).wrapping_mul(2_654_435_761));
            wanted = all;
        }
    }
    let mut taken = vec![false; lines.len() + 1];
    let mut positions = Vec::new();
    for line in wanted {
        let tokens = text.line_tokens(line);
        let tokens = tokens.start..tokens.end.min(before);
        if tokens.is_empty() || std::mem::replace(&mut taken[line.min(lines.len())], true) {
            continue;
        }
        if positions.len() + tokens.len() > room {
            break;
        }
        positions.extend(tokens);
    }
    positions
}

/// Positions of the tokens of all imports and headers whose lines have ended.
pub(super) fn all(text: &Text) -> Vec<usize> {
    let lines = text.scanner.lines().iter().enumerate();
    lines.filter(|(_, line)| line.pinned()).flat_map(|(i, _)| text.line_tokens(i)).collect()
}

/// How much a piece of text has to do with the last tokens: rare names they share.
pub(super) struct Words {
    /// For each word of the last tokens, in how many lines it occurs.
    lines: HashMap<u64, u32>,
}

impl Words {
    /// Words of the last `recent` tokens.
    pub(super) fn of(text: &Text, recent: usize) -> Words {
        let first = text.tokens().saturating_sub(recent);
        let from = text.line_of(first);
        let mut lines: HashMap<u64, u32> = HashMap::new();
        for i in from..text.line_count() {
            text.line_words(i).for_each(|word| {
                lines.entry(word).or_default();
            });
        }
        for i in 0..text.line_count() {
            for word in text.line_words(i) {
                if let Some(n) = lines.get_mut(&word) {
                    *n += 1;
                }
            }
        }
        Words { lines }
    }

    /// `sum over shared words of 1 / lines with that word`.
    pub(super) fn score(&self, words: impl Iterator<Item = u64>) -> f64 {
        words.filter_map(|word| self.lines.get(&word)).map(|&n| 1.0 / f64::from(n.max(1))).sum()
    }
}
