//! One conversation: its tokens, its KV cache and the logits after its last token.

mod ahead;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use cchaha_plan::{Footprint, Limits, PAGE_CELLS};
use cchaha_shaders::Gpu;

use crate::device::{self, Device, Opened};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::SequenceId;
use crate::memory::{bytes_text, memory};
use crate::model::Model;
use crate::rope::RopeOptions;
use crate::scheduler::{Listener, Progress, Request, Scheduler, Wanted};
use crate::window::{self, Reader, Seen, Tally, WindowOptions};

/// The context a session has where none is asked for, unless the model was trained for less.
pub const DEFAULT_CONTEXT: usize = 8192;

/// How to run a model.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Where to compute.
    pub device: Device,
    /// Threads of the processor; all its cores where not given.
    pub threads: Option<usize>,
    /// Layers the graphics device computes, the last ones, the rest on the processor; as many as fit where not given.
    pub gpu_layers: Option<usize>,
    /// Told of the upload of weights to a graphics device.
    pub upload: Option<Upload>,
    /// Tokens of context; [`DEFAULT_CONTEXT`] or what the model was trained for where not given.
    pub ctx: Option<usize>,
    /// Most tokens evaluated at once.
    pub batch: usize,
    /// Keep activations in f32 where the fast path would round them.
    pub exact: bool,
    /// Instruction set the processor's kernels are limited to, for example `avx2`.
    pub isa: Option<String>,
    /// Name of one kernel to use wherever it can serve.
    pub kernel: Option<String>,
    /// Pack weights for the processor while decoding, where that is faster and memory has room for them.
    pub repack: bool,
    /// Long inputs are cut so that progress is told, and a stop heard, about this often. Without it every batch
    /// is as large as `batch` allows, which is a little faster. It never changes what is computed.
    pub response: Option<Duration>,
    /// What attention sees of the past, and what stays in memory.
    pub window: WindowOptions,
    /// Rotary positions other than the model's own, also for going past the length it was trained for.
    pub rope: Option<RopeOptions>,
    /// Count how often queries choose each page, for [`Seen::chosen`]; only the processor can.
    pub count_chosen: bool,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            device: Device::Auto,
            threads: None,
            gpu_layers: None,
            upload: None,
            ctx: None,
            batch: 512,
            exact: false,
            isa: None,
            kernel: None,
            repack: true,
            response: Some(Duration::from_millis(100)),
            window: WindowOptions::default(),
            rope: None,
            count_chosen: false,
        }
    }
}

/// What hears of an upload: bytes done, and bytes in all.
#[derive(Clone)]
pub struct Upload(pub Arc<dyn Fn(u64, u64) + Send + Sync>);

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upload")
    }
}

/// One conversation with a model. Everything is allocated when it is made.
pub struct Session {
    model: Arc<Model>,
    scheduler: Scheduler,
    sequence: SequenceId,
    reader: Reader,
    tokens: Vec<u32>,
    /// After the last token; empty where that token has not been evaluated since a cut.
    logits: Vec<f32>,
    /// The token whose step was begun ahead, on a device that chose it.
    begun: Option<u32>,
    context: usize,
    footprint: Footprint,
    backend_name: String,
    gpu: Option<Gpu>,
}

impl Session {
    /// Opens the device and allocates KV cache and buffers, after checking that they fit.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for options out of range, [`ErrorKind::Device`], [`ErrorKind::DoesNotFit`] with the
    /// numbers, and [`ErrorKind::Model`] where no kernel serves a step.
    pub fn new(model: &Arc<Model>, options: &SessionOptions) -> Result<Session> {
        let context = context(model, options)?;
        let Prepared { mut scheduler, reader, footprint, backend_name, gpu } =
            prepare(model, options, context, Batches { sequences: 1, logits: 1 })?;
        let sequence = scheduler.kv_mut().add();
        Ok(Session {
            model: model.clone(),
            scheduler,
            sequence,
            reader,
            tokens: Vec::new(),
            logits: Vec::new(),
            begun: None,
            context,
            footprint,
            backend_name,
            gpu,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What was allocated beside the mapped weights.
    pub fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// For messages, for example `cpu (avx2, 8 threads)`.
    pub fn backend_name(&self) -> &str {
        &self.backend_name
    }

    /// The graphics device it was opened on, for counters and times; none where the processor runs it.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// The tokens evaluated so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The most tokens there can be.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What the model expects after the last token, `[vocab]`; empty at the start and after a cut.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Appends tokens and evaluates them.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where they exceed the context, with nothing evaluated; [`ErrorKind::Interrupted`]
    /// where `progress` breaks, with the tokens evaluated until then kept; those of the device.
    pub fn feed(
        &mut self,
        tokens: &[u32],
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        self.check_tokens(tokens)?;
        self.check_length(self.tokens.len() + tokens.len())?;
        if tokens.is_empty() {
            return Ok(());
        }
        self.settle();
        self.logits.clear();
        let mut listener = Feed { logits: &mut self.logits, progress };
        let request = Request { sequence: self.sequence, tokens, logits: Wanted::Last, further: &[] };
        let tokenizer = self.model.tokenizer();
        let outcome = self.reader.run(&mut self.scheduler, tokenizer, request, &mut listener);
        let evaluated = self.scheduler.kv().len(self.sequence) - self.tokens.len();
        self.tokens.extend_from_slice(&tokens[..evaluated]);
        self.reader.sync(&mut self.scheduler, self.sequence, tokenizer, &self.tokens);
        if outcome?.is_break() && evaluated < tokens.len() {
            return Err(Error::interrupted());
        }
        Ok(())
    }

    /// Makes the conversation `tokens`, evaluating only what follows the longest common beginning; gives back how
    /// many tokens were reused.
    ///
    /// # Errors
    /// Those of [`Session::feed`]; also [`ErrorKind::Usage`] for no tokens at all.
    pub fn set_prompt(
        &mut self,
        tokens: &[u32],
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<usize> {
        if tokens.is_empty() {
            return Err(Error::usage("the prompt is empty, and the model has no token to begin with"));
        }
        self.check_tokens(tokens)?;
        self.check_length(tokens.len())?;
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        if common == tokens.len() && common == self.tokens.len() && !self.logits.is_empty() {
            return Ok(common);
        }
        self.truncate(common.min(tokens.len() - 1));
        let reused = self.tokens.len();
        self.feed(&tokens[reused..], progress)?;
        Ok(reused)
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.settle();
        if len < self.tokens.len() {
            let kept = self.scheduler.kv_mut().truncate(self.sequence, len);
            self.tokens.truncate(kept);
            self.logits.clear();
            self.reader.sync(&mut self.scheduler, self.sequence, self.model.tokenizer(), &self.tokens);
        }
    }

    /// What the next token sees of those before it.
    pub fn seen(&self) -> Seen {
        self.reader.seen(&self.scheduler, self.sequence)
    }

    /// Makes [`Session::logits`] those of the last token, after a cut.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        let Some(&last) = self.tokens.last() else {
            return Err(Error::usage("nothing has been evaluated yet, so there is nothing to continue"));
        };
        if self.logits.is_empty() {
            self.truncate(self.tokens.len() - 1);
            self.feed(&[last], &mut |_| ControlFlow::Continue(()))?;
        }
        Ok(())
    }

    fn check_length(&self, len: usize) -> Result<()> {
        if len <= self.context {
            return Ok(());
        }
        let trained = self.model.context();
        let advice = if self.context < trained {
            format!("give a larger one with --ctx (the model takes up to {trained}), or shorten the prompt")
        } else {
            "this is all the model was trained for; shorten the prompt, or go beyond with --ctx and --rope yarn".to_owned()
        };
        Err(Error::usage(format!(
            "the prompt has {len} tokens and the context holds {}; {advice}",
            self.context
        )))
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        check_tokens(&self.model, tokens)
    }
}

/// That every token is one of the model's.
pub(crate) fn check_tokens(model: &Model, tokens: &[u32]) -> Result<()> {
    let vocab = model.plan().vocab;
    match tokens.iter().find(|&&token| token as usize >= vocab) {
        Some(token) => Err(Error::usage(format!("there is no token {token}: the model has {vocab}"))),
        None => Ok(()),
    }
}

struct Feed<'a> {
    logits: &'a mut Vec<f32>,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl Listener for Feed<'_> {
    fn logits(&mut self, _request: usize, _token: usize, logits: &[f32]) -> Result<()> {
        self.logits.extend_from_slice(logits);
        Ok(())
    }

    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        (self.progress)(progress)
    }
}

/// The context the options ask for.
pub(crate) fn context(model: &Model, options: &SessionOptions) -> Result<usize> {
    let trained = model.context();
    match options.ctx {
        None => Ok(trained.min(DEFAULT_CONTEXT)),
        Some(0) => Err(Error::usage("a context of 0 tokens holds nothing; give 1 or more")),
        Some(ctx) if ctx > trained && options.rope.is_none() => Err(Error::usage(format!(
            "a context of {ctx} tokens is more than the {trained} the model was trained for; give {trained} or less, or say with --rope how to go beyond"
        ))),
        Some(ctx) => Ok(ctx),
    }
}

/// A model ready to run.
pub(crate) struct Prepared {
    pub(crate) scheduler: Scheduler,
    pub(crate) reader: Reader,
    pub(crate) footprint: Footprint,
    pub(crate) backend_name: String,
    pub(crate) gpu: Option<Gpu>,
}

/// What batches hold at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batches {
    /// Sequences, each with a context of its own.
    pub(crate) sequences: usize,
    /// Rows of logits.
    pub(crate) logits: usize,
}

/// Opens the device and prepares the model on it for sequences of `context` tokens, if that fits.
pub(crate) fn prepare(
    model: &Model,
    options: &SessionOptions,
    context: usize,
    batches: Batches,
) -> Result<Prepared> {
    if options.batch == 0 {
        return Err(Error::usage("a batch of 0 tokens evaluates nothing; give 1 or more"));
    }
    if options.threads == Some(0) {
        return Err(Error::usage("0 threads compute nothing; give 1 or more"));
    }
    let mut plan = model.plan().clone();
    if let Some(rope) = &options.rope {
        plan = Arc::new(rope.or_of(model.gguf().metadata())?.apply(&plan, context)?);
    }
    let shares = options.window.shares(context)?;
    let shuffled = options.rope.is_some_and(|rope| rope.shuffled);
    let mut reader = Reader::new(&plan, shares, shuffled, options.window.language);
    let mut cells = match batches.sequences {
        1 => context,
        n => n * context.next_multiple_of(PAGE_CELLS),
    };
    if let Some(shares) = &shares {
        plan = Arc::new(window::budgeted(&plan, shares));
        if let Some(kept) = shares.kept {
            cells = cells.min(kept);
            let own_window = window::own_window(&plan);
            if own_window + 2 * shares.epoch > kept {
                return Err(Error::usage(format!(
                    "{} has layers that see the last {own_window} tokens, more than a KV budget of {kept} cells can \
                     keep; give a larger --kv-budget",
                    model.name()
                )));
            }
        }
    }
    let Opened { backend, gpu } = device::open(options)?;
    let limits = Limits { cells, batch: options.batch.min(cells), logits: batches.logits };
    let footprint = backend.footprint(&plan, &limits);
    check_memory(model, footprint, cells)?;
    let mut scheduler = Scheduler::new(plan, backend.as_ref(), limits, options.response)?;
    if options.count_chosen {
        let tally = Tally::default();
        reader.tally = scheduler.observe(Box::new(tally.clone())).is_ok().then_some(tally);
    }
    Ok(Prepared { scheduler, reader, footprint, backend_name: backend.name(), gpu })
}

/// Refuses what cannot be allocated now, and what could only run by reading the weights from the disk for
/// every token.
fn check_memory(model: &Model, footprint: Footprint, cells: usize) -> Result<()> {
    let Some(memory) = memory() else { return Ok(()) };
    let weights = model.plan().weight_bytes();
    let all = footprint.total().saturating_add(weights);
    let (needed, there, what) = if footprint.total() > memory.available {
        (footprint.total(), memory.available, "available")
    } else if all > memory.total {
        (all, memory.total, "there at all")
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::DoesNotFit,
        format!(
            "{} does not fit: {} are needed and {} are {what} (weights {}, KV cache of {cells} tokens {}, buffers {}); \
             give a smaller --ctx, or a smaller model or quantization",
            model.name(),
            bytes_text(needed),
            bytes_text(there),
            bytes_text(weights),
            bytes_text(footprint.kv_bytes),
            bytes_text(footprint.buffer_bytes),
        ),
    ))
}
