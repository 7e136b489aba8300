//! Many answers at once: one token of each in every batch, so that the weights are read once for all of them.
//!
//! An answer does not depend on its batch mates, so it is the one that [`crate::generate`] gives.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::generate::{Finish, FinishReason, GenerateRequest, Generation, generate};
use crate::kv::SequenceId;
use crate::model::Model;
use crate::scheduler::{Listener, Progress, Request, Wanted};
use crate::session::{self, Batches, Prepared, Session, SessionOptions};

/// A prompt and how to continue it.
#[derive(Clone, Debug)]
pub struct Job {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// How; [`GenerateRequest::healed`] must be empty.
    pub request: GenerateRequest,
}

/// An answer that is being written.
struct Slot<'a> {
    job: usize,
    sequence: SequenceId,
    generation: Generation<'a>,
    text: String,
    /// Not evaluated yet.
    pending: Vec<u32>,
    logits: Vec<f32>,
}

/// Continues each prompt; up to `at_once` of them together, each with a context of its own of the options' size. `on_answer` hears of
/// each as it ends, by the job's index, and may end it all; `progress` is asked after every batch whether to go on.
///
/// # Errors
/// [`crate::ErrorKind::Usage`] for prompts that are empty, unknown, longer than the context or to be healed;
/// [`crate::ErrorKind::Interrupted`] where `progress` breaks; those of the device.
pub fn generate_all(
    model: &Arc<Model>,
    options: &SessionOptions,
    jobs: &[Job],
    at_once: usize,
    on_answer: &mut dyn FnMut(usize, String, Finish) -> ControlFlow<()>,
    progress: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<()> {
    let context = session::context(model, options)?;
    for job in jobs {
        session::check_tokens(model, &job.prompt)?;
        if job.prompt.is_empty() || job.prompt.len() > context {
            return Err(Error::usage(format!(
                "a prompt has {} tokens, but must have 1 to {context}, the context",
                job.prompt.len()
            )));
        }
        if !job.request.healed.is_empty() {
            return Err(Error::usage("several answers at once do not heal their prompts"));
        }
    }
    let at_once = at_once.clamp(1, jobs.len().max(1));
    let Prepared { mut scheduler, reader, .. } =
        session::prepare(model, options, context, Batches { sequences: at_once, logits: at_once })?;
    if reader.reads() {
        drop(scheduler);
        return one_by_one(model, options, jobs, on_answer, progress);
    }
    let mut waiting: VecDeque<usize> = (0..jobs.len()).collect();
    let mut slots: Vec<Slot<'_>> = Vec::new();
    loop {
        while slots.len() < at_once
            && let Some(job) = waiting.pop_front()
        {
            let Job { prompt, request } = &jobs[job];
            let generation = Generation::new(model, request, prompt)?;
            let (sequence, pending) = (scheduler.kv_mut().add(), prompt.clone());
            slots.push(Slot { job, sequence, generation, text: String::new(), pending, logits: Vec::new() });
        }
        if slots.is_empty() {
            return Ok(());
        }
        let pending: Vec<Vec<u32>> = slots.iter_mut().map(|slot| std::mem::take(&mut slot.pending)).collect();
        let requests: Vec<Request<'_>> = slots
            .iter()
            .zip(&pending)
            .map(|(slot, tokens)| Request {
                sequence: slot.sequence,
                tokens,
                logits: Wanted::Last,
                further: &[],
            })
            .collect();
        let mut listener = Rows { slots: &mut slots, progress };
        if scheduler.run(&requests, &mut listener)?.is_break() {
            return Err(Error::interrupted());
        }
        let mut i = 0;
        while i < slots.len() {
            let Slot { generation, text, logits, .. } = &mut slots[i];
            let mut token = None;
            let mut goes_on = ControlFlow::Break(());
            if generation.is_wanted() {
                let chosen = generation.choose(logits)?;
                goes_on = generation.push(chosen, logits, &mut |piece| {
                    text.push_str(piece.text);
                    ControlFlow::Continue(())
                })?;
                token = Some(chosen);
            }
            let full = scheduler.kv().len(slots[i].sequence) == context;
            if full && goes_on.is_continue() {
                slots[i].generation.stop(FinishReason::Context);
                goes_on = ControlFlow::Break(());
            }
            if goes_on.is_continue() {
                slots[i].pending.extend(token);
                i += 1;
                continue;
            }
            let Slot { job, sequence, generation, mut text, .. } = slots.remove(i);
            scheduler.kv_mut().remove(sequence);
            let finish = generation.end(&mut |piece| {
                text.push_str(piece.text);
                ControlFlow::Continue(())
            });
            if on_answer(job, text, finish).is_break() {
                return Ok(());
            }
        }
    }
}

/// The same where attention depends on the structure of a text, which a session reads.
fn one_by_one(
    model: &Arc<Model>,
    options: &SessionOptions,
    jobs: &[Job],
    on_answer: &mut dyn FnMut(usize, String, Finish) -> ControlFlow<()>,
    progress: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<()> {
    let mut session = Session::new(model, options)?;
    for (i, Job { prompt, request }) in jobs.iter().enumerate() {
        let mut text = String::new();
        session.set_prompt(prompt, &mut |_| progress())?;
        let finish = generate(&mut session, request, &mut |piece| {
            text.push_str(piece.text);
            progress()
        })?;
        if finish.reason == FinishReason::Interrupted {
            return Err(Error::interrupted());
        }
        if on_answer(i, text, finish).is_break() {
            break;
        }
    }
    Ok(())
}

/// Hands the logits of a batch to the answers they belong to.
struct Rows<'a, 'b> {
    slots: &'a mut [Slot<'b>],
    progress: &'a mut dyn FnMut() -> ControlFlow<()>,
}

impl Listener for Rows<'_, '_> {
    fn logits(&mut self, request: usize, _token: usize, logits: &[f32]) -> Result<()> {
        let row = &mut self.slots[request].logits;
        row.clear();
        row.extend_from_slice(logits);
        Ok(())
    }

    fn progress(&mut self, _progress: Progress) -> ControlFlow<()> {
        (self.progress)()
    }
}
