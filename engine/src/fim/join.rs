//! Where an answer meets the text after the hole: it ends before it repeats that text, closes brackets that text closes,
//! or leaves the block the hole is in.

use crate::code::{Language, Scanner};

/// What stands beside the hole in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    /// Nothing after it.
    End,
    /// White space before it, text after it: whole lines are wanted.
    Start,
    /// Text before and after it.
    Middle,
}

/// Follows an answer line by line; a line is given out when it is complete.
#[derive(Clone, Debug)]
pub struct Join {
    scanner: Scanner,
    /// Brackets open at the hole, and of them those that must stay open for the suffix to close.
    open: usize,
    floor: usize,
    /// White space before the line with the hole, and its columns where blocks go by indentation.
    space: String,
    indent: Option<usize>,
    beside: Beside,
    /// The first two lines of the suffix that are not blank, trimmed.
    next: [String; 2],
    /// The hole is in a blank line, after a word, before white space.
    blank_line: bool,
    after_word: bool,
    before_space: bool,
    markdown: bool,
    single_line: bool,
    pending: String,
    /// Line ends, blank lines and a first line that may be the suffix's: what goes out only if more comes.
    held: String,
    /// [`Join::held`] has the suffix's first line.
    repeating: bool,
    first: bool,
    done: bool,
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
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
        let (rest, _) = suffix.split_once('\n').unwrap_or((suffix, ""));
        let blank_line = line.trim().is_empty();
        let beside = match (blank_line, rest.trim().is_empty()) {
            (_, true) => Beside::End,
            (true, false) => Beside::Start,
            (false, false) => Beside::Middle,
        };
        let mut lines = suffix.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        Join {
            scanner,
            open: before,
            floor: before - least,
            space: line[..indent(line)].to_owned(),
            indent: language.indents().then(|| indent(line)),
            beside,
            next: std::array::from_fn(|_| lines.next().unwrap_or_default()),
            blank_line,
            after_word: prefix.ends_with(is_word),
            before_space: suffix.starts_with(char::is_whitespace),
            markdown: language.name == "markdown",
            single_line: false,
            pending: String::new(),
            held: String::new(),
            repeating: false,
            first: true,
            done: false,
        }
    }

    /// The same, ending with the first line that is not blank.
    pub fn single_line(self) -> Join {
        Join { single_line: true, ..self }
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
            self.line(&line, &mut out);
            if self.done {
                return out;
            }
        }
        // Only these can end the answer before its line ends, and looking closer reads the line again.
        let may_meet = self.pending.contains([')', ']', '}']) || self.pending.contains(self.next[0].as_str());
        let inside = self.first && self.beside == Beside::Middle;
        if inside && may_meet && self.meets(&self.pending).is_some_and(|cut| cut.1) {
            let line = std::mem::take(&mut self.pending);
            self.line(&line, &mut out);
            self.done = true;
        }
        out
    }

    /// The answer is over; gives back what was held.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        let line = std::mem::take(&mut self.pending);
        if !self.done && !line.is_empty() {
            self.line(&line, &mut out);
        }
        // Before a line of the suffix whole lines are wanted; after the hole's own line its end is there already.
        if !self.done && self.beside == Beside::Start {
            out.push_str(&std::mem::take(&mut self.held));
            if out.ends_with('\n') && !self.before_space {
                out.push_str(&self.space);
            }
        }
        self.done = true;
        out
    }

    /// A line, with its end where it has one.
    fn line(&mut self, whole: &str, out: &mut String) {
        let line = whole.trim_end_matches(['\r', '\n']);
        let ended = whole.ends_with('\n');
        let end = &whole[line.len()..];
        let text = line.trim();
        if self.repeats(text, ended) {
            self.done = true;
            if self.beside == Beside::Start && !self.first {
                // The suffix's own line follows, whose indentation may be before the hole.
                out.push_str(&self.held);
                out.push_str(if self.before_space { "" } else { &self.space });
            }
            return;
        }
        let fenced = text.starts_with("```") || (!ended && !text.is_empty() && "```".starts_with(text));
        let fence = !self.markdown && fenced && self.scanner.in_code();
        if fence || self.leaves(line) {
            self.done = true;
            return;
        }
        let cut = self.meets(line);
        let kept = &line[..cut.map_or(line.len(), |(at, _)| at)];
        self.done = cut.is_some();
        let blank = kept.trim().is_empty();
        if !blank || (self.first && !self.done) {
            out.push_str(&std::mem::take(&mut self.held));
            self.repeating = false;
        }
        let hold = self.first && self.beside == Beside::End && self.blank_line && self.is_next(text);
        let closes = line[kept.len()..].starts_with([')', ']', '}']);
        match (self.done, hold || (blank && !self.first)) {
            (true, _) if blank => {}
            (true, _) if closes || self.before_space || !self.first => out.push_str(kept.trim_end()),
            (false, true) => self.held.push_str(kept),
            _ => out.push_str(kept),
        }
        self.repeating |= hold;
        self.held.push_str(end);
        self.scanner.feed(whole.as_bytes());
        let closed = self.scanner.open_brackets() <= self.floor.max(self.open);
        self.done |= ended && self.first && self.beside == Beside::Middle && closed;
        self.done |= ended && self.single_line && !text.is_empty();
        self.first = false;
    }

    fn is_next(&self, text: &str) -> bool {
        text.len() > 1 && text == self.next[0]
    }

    /// Whether a line, trimmed, is the suffix's: of its first line the end of the answer may be missing; what the answer begins with is
    /// that only if its second line follows.
    fn repeats(&self, text: &str, ended: bool) -> bool {
        if self.beside == Beside::Middle || text.is_empty() {
            return false;
        }
        if self.repeating {
            return text == self.next[1];
        }
        let begins = !ended && text.len() > 2 && self.next[0].starts_with(text);
        (!self.first || self.beside == Beside::Start) && (self.is_next(text) || begins)
    }

    /// Whether a line is outside of the block that the hole is in.
    fn leaves(&self, line: &str) -> bool {
        let balanced = self.scanner.open_brackets() <= self.floor.max(1) && self.scanner.in_code();
        let outside = self.indent.is_some_and(|least| indent(line) < least);
        !self.first && balanced && outside && !line.trim().is_empty()
    }

    /// Where a line goes into what follows the hole, and whether that is certain before the line is complete: at a bracket that the suffix
    /// closes, or where the rest of the hole's line stands, of which the line's end may have the beginning alone.
    fn meets(&self, line: &str) -> Option<(usize, bool)> {
        let mut after = self.scanner.clone();
        let mut level = Vec::new();
        let mut end = None;
        for (at, &byte) in line.as_bytes().iter().enumerate() {
            if after.open_brackets() == self.open {
                level.push(at);
            }
            after.push(byte);
            if after.open_brackets() < self.floor {
                // Bytes of brackets are ASCII, so this is a character's beginning.
                end = Some(at);
                break;
            }
        }
        let seen = &line[..end.unwrap_or(line.len())];
        let rest = self.next[0].as_str();
        if self.first && self.beside == Beside::Middle {
            for at in level.into_iter().filter(|&at| line.is_char_boundary(at) && at < seen.len()) {
                let tail = seen[at..].trim_end();
                let inside = seen[..at].chars().next_back().map_or(self.after_word, is_word);
                if tail.is_empty() || (inside && tail.starts_with(is_word)) {
                    continue;
                }
                if tail.starts_with(rest) {
                    return Some((at, true));
                }
                if rest.starts_with(tail) {
                    return Some((at, end.is_some()));
                }
            }
        }
        end.map(|end| (end, true))
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

    #[test]
    fn the_rest_of_the_line_is_not_written_twice() {
        for (prefix, suffix, answer, wanted) in [
            ("    BIO_ctrl(", ", SET_SSL, own, ssl);\n", "bio, SET_SSL, own, ssl", "bio"),
            ("    BIO_ctrl(", ", SET_SSL, own, ssl);\n", "bio, SET_SSL, own, ssl);\n  return 1;\n", "bio"),
            ("  clamp(", ", 0, 10);\n", "1.5, 0, 10", "1.5"),
            ("  read(", "(test.out))\n", "test.Path(test.out)", "test.Path"),
            ("  return ", "b;\n", "a + b;\n", "a + "),
            ("  return ", " + b;\n", "a + b", "a"),
            ("  return ", "x + 1;\n", "max", "max"),
            ("  s = \"", "\";\n", "text\";\n", "text"),
            ("  f(", ", c)\n", "g(a, c)", "g(a, c)"),
        ] {
            assert_eq!(fill("c", prefix, suffix, answer), wanted, "{prefix}|{suffix}");
        }
    }

    #[test]
    fn an_answer_that_is_the_suffix_is_none() {
        let suffix = "\n  ret = ctrl(a);\n  flags(b);\n  return ret;\n}\n";
        let prefix = "int f(void) {\n  ";
        assert_eq!(fill("c", prefix, suffix, "ret = ctrl(a);\n  flags(b);\n  return ret;\n"), "");
        assert_eq!(fill("c", prefix, suffix, "ret = ctrl(a);\n"), "", "and nothing more");
        let other = "ret = ctrl(a);\n\n  log(ret);";
        assert_eq!(fill("c", prefix, suffix, other), other, "one such line may be meant");
    }

    #[test]
    fn line_ends_are_not_written_twice() {
        let body = "return 3 * r";
        for end in ["\n", "\r\n"] {
            let (prefix, suffix) =
                (format!("def f(r):{end}    "), format!("{end}{end}def g():{end}    pass{end}"));
            assert_eq!(fill("python", &prefix, &suffix, &format!("{body}{end}{end}")), body);
            let two = format!("r += 1{end}{end}    {body}");
            assert_eq!(fill("python", &prefix, &suffix, &format!("{two}{end}")), two);
        }
    }

    #[test]
    fn lines_before_a_line_stay_lines() {
        let (indented, whole) = ("def f():\n    ", "def f():\n");
        assert_eq!(fill("python", indented, "return x\n", "x = 1\n    return x\n"), "x = 1\n    ");
        assert_eq!(fill("python", whole, "    return x\n", "    x = 1\n    return x\n"), "    x = 1\n");
        assert_eq!(fill("python", indented, "return x\n", "x = 1\n"), "x = 1\n    ");
        assert_eq!(fill("python", indented, "= 1\n", "x "), "x ");
    }

    #[test]
    fn chat_and_further_lines_can_be_kept_out() {
        let (prefix, suffix) = ("def f():\n    return ", "\n");
        assert_eq!(fill("python", prefix, suffix, "1\n```\nThis function returns 1.\n"), "1");
        assert_eq!(fill("python", prefix, suffix, "1\n``"), "1");
        let mut line = Join::new(Language::named("python").unwrap(), prefix, suffix).single_line();
        assert_eq!(line.push("1 + \\\n        2\n"), "1 + \\");
        assert!(line.done());
    }
}
