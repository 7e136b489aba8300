//! Where an answer meets the text after the hole: it ends before it repeats that text, closes brackets that text closes,
//! or leaves the block the hole is in.

use crate::code::{Language, Scanner};

/// Follows an answer line by line; a line is given out when it is complete.
#[derive(Clone, Debug)]
pub struct Join {
    scanner: Scanner,
    /// Brackets that must stay open for the suffix to close.
    floor: usize,
    /// Columns of white space before the line with the hole, where blocks go by indentation.
    indent: Option<usize>,
    /// Whether text follows the hole in its line.
    line_goes_on: bool,
    /// The first line of the suffix that is not blank, trimmed.
    next: String,
    pending: String,
    first: bool,
    done: bool,
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

impl Join {
    /// For a hole between `prefix` and `suffix`.
    pub fn new(language: &'static Language, prefix: &str, suffix: &str) -> Join {
        let mut scanner = Scanner::new(language);
        scanner.feed(prefix.as_bytes());
        let before = scanner.open_brackets();
        let mut after = scanner.clone();
        let mut least = before;
        for byte in suffix.bytes() {
            after.push(byte);
            least = least.min(after.open_brackets());
        }
        let line = &prefix[prefix.rfind('\n').map_or(0, |at| at + 1)..];
        let (rest, below) = suffix.split_once('\n').unwrap_or((suffix, ""));
        let line_goes_on = !rest.trim().is_empty();
        let next = if line_goes_on {
            rest
        } else {
            below.lines().find(|line| !line.trim().is_empty()).unwrap_or("")
        };
        Join {
            scanner,
            floor: before - least,
            indent: language.indents().then(|| indent(line)),
            line_goes_on,
            next: next.trim().to_owned(),
            pending: String::new(),
            first: true,
            done: false,
        }
    }

    /// Whether the answer has met the suffix.
    pub fn done(&self) -> bool {
        self.done
    }

    /// Takes more of the answer; gives back what belongs in the hole for certain.
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        if self.done {
            return out;
        }
        self.pending.push_str(text);
        while let Some(at) = self.pending.find('\n') {
            let line: String = self.pending.drain(..=at).collect();
            self.line(line.trim_end_matches('\n'), true, &mut out);
            if self.done {
                break;
            }
        }
        out
    }

    /// The answer is over; gives back what was held.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        let line = std::mem::take(&mut self.pending);
        if !self.done && !line.is_empty() {
            self.line(&line, false, &mut out);
        }
        self.done = true;
        out
    }

    /// A line without its end; it is given out with the line end before it.
    fn line(&mut self, line: &str, ended: bool, out: &mut String) {
        let text = line.trim();
        let balanced = self.scanner.open_brackets() <= self.floor.max(1) && self.scanner.in_code();
        let repeats = !self.first && text.len() > 1 && text == self.next && !self.line_goes_on;
        let leaves = !self.first
            && balanced
            && !text.is_empty()
            && self.indent.is_some_and(|least| indent(line) < least);
        if repeats || leaves {
            self.done = true;
            return;
        }
        let mut after = self.scanner.clone();
        if !self.first {
            after.push(b'\n');
        }
        let mut kept = line.len();
        for (at, &byte) in line.as_bytes().iter().enumerate() {
            after.push(byte);
            if after.open_brackets() < self.floor {
                // Bytes of brackets are ASCII, so this is a character's beginning.
                kept = at;
                self.done = true;
                break;
            }
        }
        if !(self.done && line[..kept].trim().is_empty() && !self.first) {
            if !self.first {
                out.push('\n');
            }
            out.push_str(if self.done { line[..kept].trim_end() } else { line });
        }
        self.scanner = after;
        if self.first && self.line_goes_on && ended && self.scanner.open_brackets() <= self.floor {
            self.done = true;
        }
        self.first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(language: &str, prefix: &str, suffix: &str, answer: &str) -> String {
        let mut whole = Join::new(Language::named(language).unwrap(), prefix, suffix);
        let mut bytewise = whole.clone();
        let mut text = whole.push(answer);
        text.push_str(&whole.finish());
        let mut pieces = String::new();
        answer.chars().for_each(|c| pieces.push_str(&bytewise.push(&c.to_string())));
        pieces.push_str(&bytewise.finish());
        assert_eq!(text, pieces);
        text
    }

    #[test]
    fn answers_end_where_the_suffix_begins() {
        let suffix = "\n    return total\n\nprint(f(2))\n";
        let body = "total = 0\n    for i in range(n):\n        total += i";
        let prefix = "def f(n):\n    ";
        assert_eq!(fill("python", prefix, suffix, body), body);
        assert_eq!(
            fill("python", prefix, suffix, &format!("{body}\n    return total\n")),
            body,
            "the suffix again"
        );
        assert_eq!(fill("python", prefix, suffix, &format!("{body}\nprint(3)\n")), body, "the block is left");
        assert_eq!(fill("python", "x = g(", ")\n", "1, 2)\ny = 3"), "1, 2", "the suffix closes the bracket");
        assert_eq!(
            fill("rust", "fn f() {\n    ", "\n}\n", "let x = 1;\n    x\n}\n\nfn g() {}"),
            "let x = 1;\n    x"
        );
        assert_eq!(fill("rust", "fn f() {", "", " x }\n"), " x }\n".trim_end(), "nobody else closes it");
        assert_eq!(fill("c", "int a = ", ";\n", "1 +\n2"), "1 +", "the line goes on after the hole");
    }
}
