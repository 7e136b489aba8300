//! Token healing (Lundberg 2023, "The art of prompt design: prompt boundaries and token healing"): a prompt often ends inside of
//! what the vocabulary writes as one token, `):` where the text goes on with `):\n    `, and training has seen few texts cut
//! there. So the prompt's last tokens are taken back, as many as one token could stand for, and chosen again: each is either what it
//! was or a token that stands for all the rest and more.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::generate::Guard;
use crate::sample::{SampleError, Sampler};
use crate::session::Session;
use crate::text::{Stream, TokenClass, Tokenizer};

/// Most tokens taken back.
const MOST: usize = 4;

/// Takes the last tokens of a prompt back, for [`crate::GenerateRequest::healed`]. Only a hybrid vocabulary wants it; prompts of
/// others stay as they are.
pub fn heal(tokenizer: &Tokenizer, prompt: &mut Vec<u32>) -> Vec<u32> {
    let is_text = |&id: &u32| tokenizer.class(id).is_some_and(|class| class != TokenClass::Control);
    let most = prompt.iter().rev().take(MOST).take_while(|id| is_text(id)).count();
    for taken in (1..=most.min(prompt.len().saturating_sub(1))).rev() {
        let kept = prompt.len() - taken;
        let stream = tokenizer.stream_after(&prompt[..kept], false);
        let bytes = bytes_of(&stream, &prompt[kept..]);
        // Characters stay whole.
        let whole = str::from_utf8(&bytes).is_ok();
        if whole && (0..tokenizer.vocab_len() as u32).any(|id| goes_beyond(&stream, id, &bytes)) {
            return prompt.split_off(kept);
        }
    }
    Vec::new()
}

/// The bytes of tokens behind what a stream has seen.
fn bytes_of(stream: &Stream<'_>, tokens: &[u32]) -> Vec<u8> {
    let mut stream = stream.clone();
    tokens.iter().flat_map(|&id| stream.bytes_of(id).to_vec()).collect()
}

/// Whether a token here begins with `bytes` and is longer.
fn goes_beyond(stream: &Stream<'_>, id: u32, bytes: &[u8]) -> bool {
    let mut stream = stream.clone();
    let token = stream.bytes_of(id);
    token.len() > bytes.len() && token.starts_with(bytes)
}

/// The first token of an answer, and how many bytes of its text the prompt has already.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    pub(crate) token: Option<u32>,
    pub(crate) known_bytes: usize,
}

/// Chooses the tokens that [`heal`] took back again. Those that are what they were join the session and the stream; one that is
/// more is the answer's first.
pub(crate) fn begin(
    session: &mut Session,
    sampler: &mut Sampler,
    stream: &mut Stream<'_>,
    healed: &[u32],
    guard: &Guard<'_>,
) -> Result<Beginning> {
    for (i, &as_it_was) in healed.iter().enumerate() {
        let rest = bytes_of(stream, &healed[i..]);
        let goes_on = |id| goes_beyond(stream, id, &rest) && guard.allows(stream, id, rest.len());
        let fits = |id: u32| id == as_it_was || goes_on(id);
        let only = |(id, &logit): (u32, &f32)| if fits(id) { logit } else { f32::NEG_INFINITY };
        let logits: Vec<f32> = (0..).zip(session.logits()).map(only).collect();
        let id = match sampler.sample(&logits) {
            // A bias bans what the prompt has; it has it all the same.
            Err(SampleError::NothingLeft) => as_it_was,
            sampled => sampled?.id,
        };
        if id != as_it_was {
            return Ok(Beginning { token: Some(id), known_bytes: rest.len() });
        }
        let _ = stream.push(as_it_was);
        sampler.accept(as_it_was);
        session.feed(&[as_it_was], &mut |_| ControlFlow::Continue(()))?;
    }
    Ok(Beginning::default())
}
