//! What goes out: results to stdout, logs and progress to stderr.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::exit::{Failure, Result};

/// The word before an error.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Side information.
pub const DIM: Style = Style::new().dimmed();
/// Table heads and titles.
pub const TITLE: Style = Style::new().bold();

/// stdout. Every failed write ends the program: quietly where the reader went away.
#[derive(Debug)]
pub struct Out {
    stdout: io::BufWriter<io::Stdout>,
    terminal: bool,
    /// Whether the last byte written ended a line.
    at_line_start: bool,
}

impl Default for Out {
    fn default() -> Out {
        Out::new()
    }
}

impl Out {
    /// The program's stdout, buffered.
    pub fn new() -> Out {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Out { stdout: io::BufWriter::new(stdout), terminal, at_line_start: true }
    }

    /// Whether colour escapes are wanted there.
    pub fn styled(&self) -> bool {
        anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
    }

    /// Adds text as it is.
    pub fn text(&mut self, text: &str) -> Result {
        if let Some(last) = text.as_bytes().last() {
            self.at_line_start = *last == b'\n';
        }
        self.stdout.write_all(text.as_bytes()).map_err(|error| Failure::stdout(&error))
    }

    /// Adds text that should be seen at once.
    pub fn stream(&mut self, text: &str) -> Result {
        self.text(text)?;
        self.flush()
    }

    /// Adds one line.
    pub fn line(&mut self, line: impl fmt::Display) -> Result {
        self.text(&format!("{line}\n"))
    }

    /// Adds one line in a style, where the terminal shows styles.
    pub fn styled_line(&mut self, style: Style, line: impl fmt::Display) -> Result {
        if self.styled() { self.line(format_args!("{style}{line}{style:#}")) } else { self.line(line) }
    }

    /// Adds one JSON value on a line of its own.
    pub fn json(&mut self, value: &impl Serialize) -> Result {
        let json = serde_json::to_string(value).map_err(Failure::other)?;
        self.line(json)
    }

    /// Ends a terminal's unfinished line, so that the shell's prompt starts on its own; a pipe gets the exact text.
    pub fn end_line(&mut self) -> Result {
        if self.terminal && !self.at_line_start {
            self.text("\n")?;
        }
        self.flush()
    }

    /// Writes out everything added so far.
    pub fn flush(&mut self) -> Result {
        self.stdout.flush().map_err(|error| Failure::stdout(&error))
    }
}

/// Text as it may stand in an XML document, such as an SVG picture.
pub fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Side of a column on which its text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Align {
    Left,
    Right,
}

/// A table for people: a bold head and padded columns.
#[derive(Debug)]
pub struct Table {
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows yet.
    pub fn new(head: &[(&str, Align)]) -> Table {
        let (names, align): (Vec<String>, Vec<Align>) =
            head.iter().map(|(name, align)| ((*name).to_owned(), *align)).unzip();
        Table { align, rows: vec![names] }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.align.len());
        self.rows.push(cells);
    }

    /// Prints it.
    pub fn print(&self, out: &mut Out) -> Result {
        let widths: Vec<usize> = (0..self.align.len())
            .map(|i| self.rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0))
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).zip(&self.align).map(|((cell, &width), align)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            if number == 0 {
                out.styled_line(TITLE, line.trim_end())?;
            } else {
                out.line(line.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Bytes with a binary unit, as in `468.6 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with a decimal unit, as in `494.03 M`.
pub fn count(n: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match UNITS.iter().find(|(size, _)| n >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", n / size),
        None => format!("{n:.0}"),
    }
}

/// `1 token`, `2 tokens`.
pub fn plural(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// What a progress bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `12/512 tokens, 80.0 t/s`.
    Tokens,
    /// `1.2 MiB/4.0 GiB, 210.0 MiB/s`.
    Bytes,
    /// `12 of 320 runs, 15 s each, 1 h 17 min left`, with this word for several of them; the pace is that since the first
    /// [`Progress::at`], which tells what was done before.
    Items(&'static str),
}

/// A progress bar over tokens; see [`progress_in`].
pub fn progress(message: impl Into<String>) -> Progress {
    progress_in(Unit::Tokens, message)
}

/// A progress bar on stderr with rate and time left; nothing where stderr is no terminal, but of items a line a minute, so
/// that a log shows life. A bar of tokens or bytes appears only once the work has taken a moment, so that short work stays
/// quiet.
pub fn progress_in(unit: Unit, message: impl Into<String>) -> Progress {
    let start = Instant::now();
    Progress { bar: None, unit, message: message.into(), start, first: None, last_line: start }
}

/// See [`progress_in`].
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    unit: Unit,
    message: String,
    start: Instant,
    /// How many items were done at the first call, and when that was.
    first: Option<(usize, Instant)>,
    /// When a line was last written instead of a bar.
    last_line: Instant,
}

impl Progress {
    const PATIENCE: Duration = Duration::from_millis(400);
    const BETWEEN_LINES: Duration = Duration::from_secs(60);

    /// `done` of `total` are done.
    pub fn at(&mut self, done: usize, total: usize) {
        if let Unit::Items(noun) = self.unit {
            return self.items_at(noun, done, total);
        }
        if self.bar.is_none() && self.start.elapsed() > Self::PATIENCE {
            self.bar = Some(self.show(total as u64));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    /// Items take long: their bar is there from the start, unless nothing is left to do.
    fn items_at(&mut self, noun: &str, done: usize, total: usize) {
        let (before, since) = *self.first.get_or_insert_with(|| (done, Instant::now()));
        if self.bar.is_none() && done < total {
            self.bar = Some(self.show(total as u64));
        }
        let Some(bar) = &self.bar else { return };
        let pace = pace(noun, (done, total), done.saturating_sub(before), since.elapsed());
        if bar.is_hidden() && self.last_line.elapsed() >= Self::BETWEEN_LINES {
            // A log that cannot be written to gets no lines.
            let _ = writeln!(io::stderr(), "{}: {pace}", self.message);
            self.last_line = Instant::now();
        }
        bar.set_position(done as u64);
        bar.set_prefix(pace);
    }

    fn show(&self, total: u64) -> ProgressBar {
        let template = match self.unit {
            Unit::Tokens => "{msg} [{bar:30}] {pos}/{len} tokens, {rate}, {eta} left",
            Unit::Bytes => "{msg} [{bar:30}] {done}/{all}, {rate}, {eta} left",
            Unit::Items(_) => "{msg} [{bar:30}] {prefix}",
        };
        let unit = self.unit;
        // A terminal that cannot be written to gets no bar.
        let style = ProgressStyle::with_template(template)
            .expect("invariant: a constant template")
            .with_key("rate", move |state: &ProgressState, to: &mut dyn fmt::Write| {
                let _ = match unit {
                    Unit::Tokens => write!(to, "{:.1} t/s", state.per_sec()),
                    Unit::Bytes => write!(to, "{}/s", bytes(state.per_sec() as u64)),
                    Unit::Items(_) => Ok(()),
                };
            })
            .with_key("done", |state: &ProgressState, to: &mut dyn fmt::Write| {
                let _ = write!(to, "{}", bytes(state.pos()));
            })
            .with_key("all", |state: &ProgressState, to: &mut dyn fmt::Write| {
                let _ = write!(to, "{}", bytes(state.len().unwrap_or(0)));
            })
            .progress_chars("=> ");
        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
            .with_style(style)
            .with_message(self.message.clone())
            .with_elapsed(self.start.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `12 of 320 runs, 15 s each, 1 h 17 min left`; `new` of those done took `elapsed`.
fn pace(noun: &str, (done, total): (usize, usize), new: usize, elapsed: Duration) -> String {
    let counted = format!("{done} of {total} {noun}");
    if new == 0 {
        return counted;
    }
    let each_s = (elapsed.as_secs_f64() / new as f64).max(1e-3);
    let rate =
        if each_s < 1.0 { format!("{:.1}/s", 1.0 / each_s) } else { format!("{} each", duration(each_s)) };
    match total.saturating_sub(done) {
        0 => format!("{counted}, {rate}"),
        left => format!("{counted}, {rate}, {} left", duration(each_s * left as f64)),
    }
}

/// `4.8 s`, `15 s`, `2 min 5 s`, `17 min`, `1 h 17 min`.
fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{s} s"),
        60..600 => format!("{} min {} s", s / 60, s % 60),
        600..3600 => format!("{} min", s / 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// Logs to stderr: what `RUST_LOG` asks for, else warnings, and with `-v` information too.
pub fn start_logs(verbose: bool) {
    let default = if verbose { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let styled = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(styled)
        .with_target(false)
        .without_time()
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(491_400_032), "468.6 MiB");
        assert_eq!(count(999.0), "999");
        assert_eq!(count(494_032_768.0), "494.03 M");
        assert_eq!(plural(1, "token"), "1 token");
        assert_eq!(plural(0, "token"), "0 tokens");
    }

    #[test]
    fn durations_read_well() {
        let of = [
            (0.4, "0.4 s"),
            (4.84, "4.8 s"),
            (9.96, "10 s"),
            (59.6, "1 min 0 s"),
            (125.0, "2 min 5 s"),
            (1020.0, "17 min"),
            (4620.0, "1 h 17 min"),
            (360_000.0, "100 h 0 min"),
        ];
        for (seconds, text) in of {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn the_pace_of_items_is_that_of_the_new_ones() {
        let seconds = Duration::from_secs;
        assert_eq!(pace("runs", (12, 320), 0, seconds(9)), "12 of 320 runs");
        assert_eq!(pace("runs", (12, 320), 2, seconds(30)), "12 of 320 runs, 15 s each, 1 h 17 min left");
        assert_eq!(pace("files", (30, 40), 20, seconds(4)), "30 of 40 files, 5.0/s, 2.0 s left");
        assert_eq!(pace("runs", (4, 4), 4, seconds(8)), "4 of 4 runs, 2.0 s each");
    }

    #[test]
    fn items_that_were_done_before_do_not_count() {
        let mut progress = progress_in(Unit::Items("runs"), "scoring");
        progress.at(3, 3);
        assert!(progress.bar.is_none(), "nothing is left to show");
        let mut progress = progress_in(Unit::Items("runs"), "scoring");
        progress.at(7, 10);
        progress.at(8, 10);
        assert_eq!(progress.first.map(|(done, _)| done), Some(7));
    }
}
