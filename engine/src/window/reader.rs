//! Follows a session's text: scans it, and at every epoch pins lines and folds what is old.
//!
//! Epochs begin at fixed positions, and what is decided there depends on the text before it only. So a run does not
//! depend on how a prompt is cut into batches.

use std::ops::{ControlFlow, Range};

use cchaha_plan::{PAGE_CELLS, Plan};

use super::{Shares, Tally, pins};
use crate::code::{Language, Line, Scanner};
use crate::error::Result;
use crate::kv::SequenceId;
use crate::scheduler::{Listener, Progress, Request, Scheduler};
use crate::text::{Decoder, Tokenizer};

/// The text so far, by tokens and by lines.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) scanner: Scanner,
    language: &'static Language,
    decoder: Decoder,
    /// For each token, the line its first visible byte is in, and its scope position.
    places: Vec<(u32, i32)>,
    /// For each line, its first token.
    first_tokens: Vec<usize>,
    /// Hashes of the words of each line.
    words: Vec<Vec<u64>>,
    word: Option<u64>,
}

impl Text {
    fn new(language: &'static Language) -> Text {
        Text {
            scanner: Scanner::new(language),
            language,
            decoder: Decoder::default(),
            places: Vec::new(),
            first_tokens: vec![0],
            words: vec![Vec::new()],
            word: None,
        }
    }

    fn read(&mut self, tokenizer: &Tokenizer, tokens: &[u32]) {
        let mut decoder = std::mem::take(&mut self.decoder);
        tokens.iter().for_each(|&token| self.push(decoder.push(tokenizer, token)));
        self.decoder = decoder;
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut line = None;
        let position = self.scanner.position();
        for &byte in bytes {
            if line.is_none() && !byte.is_ascii_whitespace() {
                line = Some(self.scanner.lines().len());
            }
            self.scanner.push(byte);
            self.read_word(byte);
        }
        let line = line.unwrap_or(self.scanner.lines().len());
        while self.first_tokens.len() <= self.scanner.lines().len() {
            // Lines that begin inside this token: the one its text is in is its own, the rest begin after it.
            let own = self.first_tokens.len() == line;
            self.first_tokens.push(self.places.len() + usize::from(!own));
        }
        self.places.push((line as u32, position as i32));
    }

    /// FNV-1a of every word of two bytes or more that is not a number.
    fn read_word(&mut self, byte: u8) {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
            let hash = self.word.unwrap_or(0xcbf2_9ce4_8422_2325);
            self.word = Some((hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            return;
        }
        if let (Some(word), Some(line)) = (self.word.take(), self.words.last_mut()) {
            line.push(word);
        }
        if byte == b'\n' {
            self.words.push(Vec::new());
        }
    }

    pub(super) fn tokens(&self) -> usize {
        self.places.len()
    }

    /// Lines begun.
    pub(super) fn line_count(&self) -> usize {
        self.words.len()
    }

    pub(super) fn line_of(&self, token: usize) -> usize {
        self.places.get(token).map_or(self.line_count(), |place| place.0 as usize)
    }

    pub(super) fn line_tokens(&self, line: usize) -> Range<usize> {
        let at = |line: usize| self.first_tokens.get(line).copied().unwrap_or(self.places.len());
        at(line)..at(line + 1)
    }

    pub(super) fn line_words(&self, line: usize) -> impl Iterator<Item = u64> + '_ {
        self.words.get(line).into_iter().flatten().copied()
    }
}

/// What a causal reading of a text says of one of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its position on the scope axis: scope and block openings and top-level item boundaries before it.
    pub scope: i32,
    /// Whether its line is an import or a header, which stay in sight of windows.
    pub pinned: bool,
}

/// The places of a text's tokens, each given by its bytes: what a session that reads the text whole uses of it.
pub fn places<'a>(language: &'static Language, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Place> {
    let mut text = Text::new(language);
    pieces.into_iter().for_each(|piece| text.push(piece));
    let last = text.scanner.last_line();
    let pinned =
        |line: u32| text.scanner.lines().get(line as usize).or(last.as_ref()).is_some_and(Line::pinned);
    text.places.iter().map(|&(line, scope)| Place { scope, pinned: pinned(line) }).collect()
}

/// What became of the tokens of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Among the first or the last, which are always seen.
    Seen,
    /// Pinned.
    Pinned,
    /// Seen when a query chooses its page.
    Chosen,
    /// Not seen, but in memory.
    Unseen,
    /// Dropped for good, but for what single KV heads keep of it.
    Folded,
}

/// What a session sees of its past, for explanations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// For each token, the line of the text it is in, counted from 0; empty where nobody read the text.
    pub lines: Vec<u32>,
    /// What became of it.
    pub fates: Vec<Fate>,
    /// How often queries chose its page, of all layers and KV heads; empty where nobody counted.
    pub chosen: Vec<u64>,
    /// The policy of the code window; empty where there is none.
    pub policy: &'static str,
    /// Tokens that a query sees at most, itself among them; with folding, the cells that are kept.
    pub most: usize,
    /// The longest window that layers have of their own; 0 where none has one.
    pub own_window: usize,
}

impl Seen {
    /// How many tokens have one of these fates.
    pub fn count(&self, fates: &[Fate]) -> usize {
        self.fates.iter().filter(|fate| fates.contains(fate)).count()
    }
}

/// See the file's header.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    shares: Option<Shares>,
    own_window: usize,
    /// Whether the model itself sees pins: then all imports and headers are, and no budget chooses among them.
    own_pins: bool,
    axes: usize,
    shuffled: bool,
    text: Text,
    pinned: Vec<usize>,
    /// Where somebody counts.
    pub(crate) tally: Option<Tally>,
}

/// Scope positions in another order: within blocks of 64, by an odd multiplier, so that every one has its place.
fn shuffle(position: i32) -> i32 {
    position & !63 | position.wrapping_mul(37) & 63
}

impl Reader {
    /// For a plan as the model has it, or with its masks reduced to `shares`.
    pub(crate) fn new(
        plan: &Plan,
        shares: Option<Shares>,
        shuffled: bool,
        language: &'static Language,
    ) -> Reader {
        let (own_window, own_pins) = (super::own_window(plan), super::own_pins(plan));
        let text = Text::new(language);
        Reader {
            shares,
            own_window,
            own_pins,
            axes: plan.axes,
            shuffled,
            text,
            pinned: Vec::new(),
            tally: None,
        }
    }

    /// Whether anybody asks what the text says: positions, pins, or an explanation.
    pub(crate) fn reads(&self) -> bool {
        self.axes > 1 || self.own_pins || self.shares.is_some() || self.tally.is_some()
    }

    /// Positions between decisions; without pins and folding there is nothing to decide.
    fn epoch(&self) -> usize {
        let decides = |shares: &Shares| shares.pins > 0 || shares.kept.is_some();
        match self.shares.filter(decides) {
            _ if self.own_pins => PAGE_CELLS,
            Some(shares) => shares.epoch,
            None => usize::MAX,
        }
    }

    /// [`Scheduler::run`] of one request, epoch by epoch.
    pub(crate) fn run(
        &mut self,
        scheduler: &mut Scheduler,
        tokenizer: &Tokenizer,
        request: Request<'_>,
        listener: &mut dyn Listener,
    ) -> Result<ControlFlow<()>> {
        if !self.reads() {
            return scheduler.run(&[request], listener);
        }
        let total = request.tokens.len();
        let mut done = 0;
        while done < total {
            let at = scheduler.kv().len(request.sequence);
            let epoch = self.epoch();
            if at.is_multiple_of(epoch) {
                self.begin_epoch(scheduler, request.sequence)?;
            }
            let n = (total - done).min(epoch - at % epoch);
            let tokens = &request.tokens[done..done + n];
            let before = self.text.tokens();
            self.text.read(tokenizer, tokens);
            let further: Vec<i32> = self.text.places[before..]
                .iter()
                .map(|&(_, position)| if self.shuffled { shuffle(position) } else { position })
                .flat_map(|position| std::iter::repeat_n(position, self.axes - 1))
                .collect();
            let last = done + n == total;
            let logits = if last || request.logits == crate::Wanted::All {
                request.logits
            } else {
                crate::Wanted::None
            };
            let part = Request { sequence: request.sequence, tokens, logits, further: &further };
            let mut part_listener = Part { listener: &mut *listener, done, total };
            let outcome = scheduler.run(&[part], &mut part_listener);
            if outcome?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            done += n;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Makes the text that of `tokens`, which is what the sequence holds: after a cut, it is read again.
    pub(crate) fn sync(
        &mut self,
        scheduler: &mut Scheduler,
        sequence: SequenceId,
        tokenizer: &Tokenizer,
        tokens: &[u32],
    ) {
        if !self.reads() || tokens.len() == self.text.tokens() {
            return;
        }
        let epoch = self.epoch();
        let (before, since) = tokens.split_at(tokens.len() / epoch * epoch);
        self.tally.iter().for_each(Tally::clear);
        self.text = Text::new(self.text.language);
        self.text.read(tokenizer, before);
        // What was pinned when this epoch began is pinned again; what was folded since is gone.
        self.pin(scheduler, sequence);
        self.text.read(tokenizer, since);
    }

    fn begin_epoch(&mut self, scheduler: &mut Scheduler, sequence: SequenceId) -> Result<()> {
        self.pin(scheduler, sequence);
        let Some(Shares { kept: Some(kept), recent, sinks, epoch, .. }) = self.shares else { return Ok(()) };
        // The last tokens, what layers with windows of their own see, and the epoch that begins here stay whole.
        let recent = recent.max(self.own_window).next_multiple_of(PAGE_CELLS);
        let before = scheduler.kv().len(sequence).saturating_sub(recent);
        scheduler.fold(sequence, before, sinks as usize, kept - recent - epoch)
    }

    fn pin(&mut self, scheduler: &mut Scheduler, sequence: SequenceId) {
        let pinned = match self.shares.filter(|shares| shares.pins > 0) {
            _ if self.own_pins => pins::all(&self.text),
            Some(shares) => {
                // What leaves the window before the epoch ends needs a pin to stay in sight.
                let before = (self.text.tokens() + shares.epoch).saturating_sub(shares.recent);
                pins::pins(&self.text, shares.prior, shares.recent, before, shares.pins)
            }
            None => return,
        };
        let len = scheduler.kv().len(sequence);
        for position in std::mem::replace(&mut self.pinned, pinned) {
            if position < len {
                scheduler.kv_mut().pin(sequence, position, false);
            }
        }
        self.pinned.iter().for_each(|&position| scheduler.kv_mut().pin(sequence, position, true));
    }

    /// What the next query sees of the past.
    pub(crate) fn seen(&self, scheduler: &Scheduler, sequence: SequenceId) -> Seen {
        let n = scheduler.kv().len(sequence);
        let fate = |position: usize| match self.shares {
            _ if scheduler.kv().cell(sequence, position).is_none() => Fate::Folded,
            None => Fate::Seen,
            Some(shares) if shares.kept.is_some() => Fate::Seen,
            Some(shares) if position < shares.sinks as usize || position + shares.recent > n => Fate::Seen,
            Some(_) if self.pinned.contains(&position) => Fate::Pinned,
            Some(shares) if shares.pages > 0 => Fate::Chosen,
            Some(_) => Fate::Unseen,
        };
        let line = |i: usize| self.text.places.get(i).map_or(0, |place| place.0);
        let times = |tally: &Tally, position| {
            scheduler.kv().cell(sequence, position).map_or(0, |cell| tally.of(cell as usize / PAGE_CELLS))
        };
        let chosen = self.tally.iter().flat_map(|tally| (0..n).map(move |position| times(tally, position)));
        let fates: Vec<Fate> = (0..n).map(fate).collect();
        Seen {
            lines: if self.reads() { (0..n).map(line).collect() } else { Vec::new() },
            chosen: chosen.collect(),
            policy: self.shares.map_or("", |shares| shares.policy),
            most: self.shares.map_or(n + 1, |shares| most_seen(&shares, &fates)),
            own_window: self.own_window,
            fates,
        }
    }
}

/// [`Seen::most`]: the budget, or where the text is shorter what the next query sees, which may be less than all of it: pages and
/// pins have shares of their own.
fn most_seen(shares: &Shares, fates: &[Fate]) -> usize {
    let budget = shares.sinks as usize + shares.recent + shares.pins + shares.pages * PAGE_CELLS;
    match shares.kept {
        Some(kept) => return kept,
        None if fates.len() > budget => return budget,
        None => {}
    }
    let of = |fates: &[Fate], fate: Fate| fates.iter().filter(|&&other| other == fate).count();
    let mut chosen: Vec<usize> = fates.chunks(PAGE_CELLS).map(|page| of(page, Fate::Chosen)).collect();
    chosen.sort_unstable_by(|a, b| b.cmp(a));
    1 + of(fates, Fate::Seen) + of(fates, Fate::Pinned) + chosen.iter().take(shares.pages).sum::<usize>()
}

/// Passes a part of a request off as the whole.
struct Part<'a> {
    listener: &'a mut dyn Listener,
    done: usize,
    total: usize,
}

impl Listener for Part<'_> {
    fn logits(&mut self, request: usize, token: usize, logits: &[f32]) -> Result<()> {
        self.listener.logits(request, self.done + token, logits)
    }

    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        self.listener.progress(Progress { done: self.done + progress.done, total: self.total })
    }
}
