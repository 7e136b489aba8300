//! Token healing: a prompt often ends inside of what the vocabulary writes as one token, `):` where the text goes on with `):\n    `,
//! and training has seen few texts cut there. So the last tokens are taken back, and the answer has to begin with their bytes,
//! which are not given out again (Lundberg 2023, "Prompt boundaries and token healing").

use crate::text::{Stream, TokenClass, Tokenizer};

/// Most tokens taken back.
const MOST: usize = 4;

/// Takes the last tokens of a prompt back and returns their bytes, for [`crate::GenerateRequest::begins`]: tokens of structure, which
/// reach over line ends, or else one token. Only a hybrid vocabulary wants it; prompts of others stay as they are.
pub fn heal(tokenizer: &Tokenizer, prompt: &mut Vec<u32>) -> Vec<u8> {
    let class = |at: usize| tokenizer.class(prompt[at]);
    let mut kept = prompt.len();
    while kept > 1 && prompt.len() - kept < MOST && class(kept - 1) == Some(TokenClass::Structure) {
        kept -= 1;
    }
    if kept == prompt.len() && kept > 1 && class(kept - 1).is_some_and(|class| class != TokenClass::Control) {
        kept -= 1;
    }
    let mut stream = tokenizer.stream_after(&prompt[..kept], false);
    let bytes = prompt[kept..].iter().flat_map(|&id| stream.bytes_of(id).to_vec()).collect();
    prompt.truncate(kept);
    bytes
}

/// What an answer still has to begin with.
#[derive(Debug)]
pub(crate) struct Beginning {
    bytes: Vec<u8>,
    /// Bytes of text that are not given out.
    hidden: usize,
}

impl Beginning {
    pub(crate) fn new(bytes: &[u8]) -> Beginning {
        Beginning { bytes: bytes.to_vec(), hidden: bytes.len() }
    }

    /// Whether any token may come.
    pub(crate) fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }

    /// `logits [vocab]` with those of tokens that do not fit ruled out. `stream` stands where the answer does.
    pub(crate) fn only_fitting(&self, stream: &Stream<'_>, logits: &[f32]) -> Vec<f32> {
        let fits = |id: usize| {
            let mut stream = stream.clone();
            let bytes = stream.bytes_of(id as u32);
            !bytes.is_empty() && (bytes.starts_with(&self.bytes) || self.bytes.starts_with(bytes))
        };
        logits
            .iter()
            .enumerate()
            .map(|(id, &logit)| if fits(id) { logit } else { f32::NEG_INFINITY })
            .collect()
    }

    /// Takes note of a chosen token; call it before the stream moves on.
    pub(crate) fn accept(&mut self, stream: &Stream<'_>, id: u32) {
        if !self.is_over() {
            let came = stream.clone().bytes_of(id).len();
            self.bytes.drain(..came.min(self.bytes.len()));
        }
    }

    /// The part of a piece of text that is new.
    pub(crate) fn show<'a>(&mut self, text: &'a str) -> &'a str {
        let hidden = self.hidden.min(text.len());
        self.hidden -= hidden;
        text.get(hidden..).unwrap_or_default()
    }
}
