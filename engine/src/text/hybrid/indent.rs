//! Indentation as a stack of levels, so that a line break and what follows it can be one token: "deeper by one unit",
//! "as before", "out by two levels".
//!
//! The state follows from the bytes of the text alone and not from the tokens that gave them, so the encoder, the
//! decoder and whoever continues a text always agree on it. A line changes it when its first byte that is no space comes.

/// Deepest indentation that is followed, in bytes; deeper lines leave the state as it is.
const MAX_BYTES: usize = 120;
/// Most levels; what is nested deeper belongs to the deepest.
const MAX_LEVELS: usize = 24;

/// What one level deeper may add.
pub(super) const UNITS: [&[u8]; 4] = [b"    ", b"  ", b"\t", b"        "];
/// Levels one break may leave.
pub(super) const MAX_OUT: usize = 6;
/// Blank lines one break may hold.
pub(super) const MAX_BLANK: usize = 2;
/// As before, deeper by a unit, out by some levels.
const CHANGES: usize = 1 + UNITS.len() + MAX_OUT;
/// How many relative line breaks there are.
pub(super) const BREAKS: usize = CHANGES * (MAX_BLANK + 1);

/// A line break with up to [`MAX_BLANK`] blank lines and the next line's indentation relative to the last one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Break(u8);

/// What the next line's indentation is.
enum Change {
    Same,
    In(&'static [u8]),
    Out(usize),
}

impl Break {
    /// Break `code`, below [`BREAKS`].
    pub(super) fn new(code: u8) -> Option<Break> {
        (usize::from(code) < BREAKS).then_some(Break(code))
    }

    /// Its number.
    pub(super) fn code(self) -> u8 {
        self.0
    }

    fn with(change: usize, blank: usize) -> Break {
        Break((blank * CHANGES + change) as u8)
    }

    fn blank(self) -> usize {
        usize::from(self.0) / CHANGES
    }

    fn change(self) -> Change {
        match usize::from(self.0) % CHANGES {
            0 => Change::Same,
            n if n <= UNITS.len() => Change::In(UNITS[n - 1]),
            n => Change::Out(n - UNITS.len()),
        }
    }

    /// How files and people read it: `⏎` for every line end, then `=`, `→4` (spaces), `→t` (a tab), or one `←` a level.
    pub(super) fn name(self) -> String {
        let ends = "⏎".repeat(self.blank() + 1);
        match self.change() {
            Change::Same => format!("{ends}="),
            Change::In(b"\t") => format!("{ends}→t"),
            Change::In(unit) => format!("{ends}→{}", unit.len()),
            Change::Out(levels) => ends + &"←".repeat(levels),
        }
    }

    /// What it adds in a text that is not indented.
    pub(super) fn plain(self) -> Vec<u8> {
        let mut bytes = vec![b'\n'; self.blank() + 1];
        if let Change::In(unit) = self.change() {
            bytes.extend(unit);
        }
        bytes
    }
}

/// Where a text stands.
#[derive(Clone, Debug)]
pub(super) struct Indent {
    /// Indentation of the last line that has more than spaces.
    current: Run,
    /// Lengths of the indentations around it and its own, ascending; without 0.
    levels: [u8; MAX_LEVELS],
    depth: usize,
    /// Spaces at the start of a line that has nothing else yet.
    open: Option<Run>,
}

/// Spaces and tabs.
#[derive(Clone, Debug)]
struct Run {
    bytes: [u8; MAX_BYTES],
    /// More than [`MAX_BYTES`] if there were more.
    len: usize,
}

impl Run {
    const EMPTY: Run = Run { bytes: [0; MAX_BYTES], len: 0 };

    fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len)
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.len = (self.len + 1).min(MAX_BYTES + 1);
    }
}

impl Default for Indent {
    fn default() -> Indent {
        Indent { current: Run::EMPTY, levels: [0; MAX_LEVELS], depth: 0, open: Some(Run::EMPTY) }
    }
}

/// Whether a byte may indent a line.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

impl Indent {
    /// Whether the next byte may still indent its line.
    pub(super) fn at_line_start(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in the next bytes of the text.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let Some(open) = &mut self.open else {
                match bytes[at..].iter().position(|&byte| byte == b'\n') {
                    Some(end) => (self.open, at) = (Some(Run::EMPTY), at + end + 1),
                    None => return,
                }
                continue;
            };
            match bytes[at] {
                byte if is_space(byte) => open.push(byte),
                b'\n' => *open = Run::EMPTY,
                // A line end of two bytes: the line is blank.
                b'\r' => self.open = None,
                _ => self.settle(),
            }
            at += 1;
        }
    }

    /// The line that has begun has more than spaces.
    fn settle(&mut self) {
        let Some(run) = self.open.take() else { return };
        let Some(bytes) = run.get() else { return };
        let Some(before) = self.current.get() else { return };
        if before == bytes {
            return;
        }
        let common = before.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        while self.depth > 0 && usize::from(self.levels[self.depth - 1]) > common {
            self.depth -= 1;
        }
        if run.len > self.level(0) && self.depth < MAX_LEVELS {
            self.levels[self.depth] = run.len as u8;
            self.depth += 1;
        }
        self.current = run;
    }

    /// Length of the indentation so many levels further out.
    fn level(&self, out: usize) -> usize {
        self.depth.checked_sub(out + 1).map_or(0, |i| self.levels[i].into())
    }

    /// The break that `blank` blank lines and then `indentation` are here.
    pub(super) fn relative(&self, indentation: &[u8], blank: usize) -> Option<Break> {
        let current = self.current.get()?;
        if indentation == current {
            return Some(Break::with(0, blank));
        }
        if let Some(more) = indentation.strip_prefix(current) {
            let unit = UNITS.iter().position(|&unit| unit == more)?;
            return Some(Break::with(1 + unit, blank));
        }
        if !current.starts_with(indentation) {
            return None;
        }
        let out = (1..=self.depth.min(MAX_OUT)).find(|&out| self.level(out) == indentation.len())?;
        Some(Break::with(UNITS.len() + out, blank))
    }

    /// The bytes of `line_break` here, added to `out`. Feeding them is left to the caller.
    pub(super) fn expand(&self, line_break: Break, out: &mut Vec<u8>) {
        out.resize(out.len() + line_break.blank() + 1, b'\n');
        let current = self.current.get().unwrap_or_default();
        match line_break.change() {
            Change::Same => out.extend_from_slice(current),
            Change::In(unit) => {
                out.extend_from_slice(current);
                out.extend_from_slice(unit);
            }
            Change::Out(levels) => {
                // Of a text that no encoder made, the current line may be shorter than its levels say.
                out.extend_from_slice(&current[..self.level(levels).min(current.len())]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Indent {
        let mut indent = Indent::default();
        indent.feed(text.as_bytes());
        indent
    }

    #[test]
    fn breaks_say_what_the_next_line_does() {
        for (text, indentation, blank, name) in [
            ("a", "", 0, Some("⏎=")),
            ("a", "    ", 0, Some("⏎→4")),
            ("a", "\t", 1, Some("⏎⏎→t")),
            ("a", "   ", 0, None),
            ("a\n    b", "    ", 2, Some("⏎⏎⏎=")),
            ("a\n    b\n        c", "    ", 0, Some("⏎←")),
            ("a\n    b\n        c", "", 1, Some("⏎⏎←←")),
            ("a\n    b\n        c", "  ", 0, None),
            // Blank lines, even of spaces, change nothing.
            ("a\n    b\n  \n\n", "    ", 0, Some("⏎=")),
            ("a\n    b\n \r\n", "", 0, Some("⏎←")),
            // An aligned line is a level of its own.
            ("f(a,\n  b\n     c", "  ", 0, Some("⏎←")),
            ("\ta\n    b", "\t", 0, None),
        ] {
            let indent = after(text);
            let found = indent.relative(indentation.as_bytes(), blank);
            assert_eq!(found.map(Break::name).as_deref(), name, "{text:?} then {indentation:?}");
            if let Some(found) = found {
                let mut bytes = Vec::new();
                indent.expand(found, &mut bytes);
                assert_eq!(bytes, format!("{}{indentation}", "\n".repeat(blank + 1)).as_bytes());
            }
        }
    }

    #[test]
    fn every_break_has_its_own_name_and_expands_anywhere() {
        let mut names: Vec<String> = (0..BREAKS as u8).filter_map(Break::new).map(Break::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), BREAKS);
        assert!(Break::new(BREAKS as u8).is_none());
        // Too deep and too long a nesting keeps expansions within bounds.
        let mut text = String::new();
        (0..200).for_each(|i| text += &format!("{}x\n", " ".repeat(i)));
        for code in 0..BREAKS as u8 {
            let mut indent = after(&text);
            let mut out = Vec::new();
            for _ in 0..100 {
                let from = out.len();
                indent.expand(Break::new(code).expect("invariant: below BREAKS"), &mut out);
                indent.feed(&out[from..]);
                indent.feed(b"x");
                assert!(out.len() - from <= MAX_BYTES + MAX_BLANK + 1 + 8);
            }
        }
    }
}
