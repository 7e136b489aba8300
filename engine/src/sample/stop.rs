//! Where an answer ends: stop tokens, and stop strings found in the streamed text.

use super::SampleError;

/// Tokens that end the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopTokens(Vec<u32>);

impl StopTokens {
    /// From ids in any order; repetitions are dropped.
    pub fn new(ids: impl IntoIterator<Item = u32>) -> StopTokens {
        let mut ids: Vec<u32> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        StopTokens(ids)
    }

    /// Whether `token` ends the text.
    pub fn contains(&self, token: u32) -> bool {
        self.0.binary_search(&token).is_ok()
    }
}

/// What may be shown after a piece of text came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamed {
    /// Text that no stop string can claim any more. Empty is common.
    pub text: String,
    /// The index of the stop string that was found. The stop string and what follows it are not part of the text.
    pub stop: Option<usize>,
}

/// Finds the first stop string in text that arrives in pieces.
///
/// The result does not depend on how the text is cut: the stop string that is complete first wins, of those
/// complete at the same place the longest. Text that may be the beginning of one is held back until it is decided;
/// without a stop, all `text`s and [`StopStrings::finish`] concatenated are exactly what came in.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text that came in and was not handed out: always the beginning of a stop string.
    held: String,
    found: Option<usize>,
}

impl StopStrings {
    /// From the stop strings, none of which may be empty.
    pub fn new(stops: Vec<String>) -> Result<StopStrings, SampleError> {
        if let Some(index) = stops.iter().position(String::is_empty) {
            return Err(SampleError::EmptyStop { index });
        }
        Ok(StopStrings { stops, held: String::new(), found: None })
    }

    /// Takes the next piece of text. After a stop string was found, everything is dropped.
    pub fn push(&mut self, piece: &str) -> Streamed {
        if self.found.is_some() {
            return Streamed { text: String::new(), stop: self.found };
        }
        self.held.push_str(piece);
        // (end, start, index) of the first occurrence of each: the least end, then the least start.
        let first = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, index))
        });
        if let Some((_, start, index)) = first.min() {
            self.found = Some(index);
            self.held.truncate(start);
            return Streamed { text: std::mem::take(&mut self.held), stop: self.found };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Streamed { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// The end of the text: hands out what was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The length in bytes of the longest end of `text` that begins `stop` and is shorter than it.
fn overlap(text: &str, stop: &str) -> usize {
    // Both are UTF-8, so an equal end starts and ends at characters.
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
}
