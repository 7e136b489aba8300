//! What a window showed and what it did not, as text and as a picture.

use std::fmt::Write;
use std::ops::Range;

use super::reader::{Fate, Seen};

/// Every fate: its word, and its colour in the picture.
const FATES: [(Fate, &str, &str); 5] = [
    (Fate::Seen, "in the window", "#4878a8"),
    (Fate::Pinned, "pinned", "#d98c2b"),
    (Fate::Chosen, "seen where a query chooses its page", "#3a8f5a"),
    (Fate::Unseen, "not seen", "#e4e4e4"),
    (Fate::Folded, "folded: each head keeps what it attends to", "#b05050"),
];

impl Seen {
    /// One sentence, where not everything is always seen.
    pub fn sentence(&self) -> Option<String> {
        let of = |fate| self.count(&[fate]);
        let (pinned, chosen) = (of(Fate::Pinned), of(Fate::Chosen));
        let (unseen, folded) = (of(Fate::Unseen), of(Fate::Folded));
        let hidden = pinned + chosen + unseen + folded;
        if hidden == 0 {
            return None;
        }
        let mut parts = Vec::new();
        for (n, what) in [
            (pinned, "pinned"),
            (chosen, "seen where a query chooses their pages"),
            (unseen, "not seen"),
            (folded, "folded"),
        ] {
            if n > 0 {
                parts.push(format!("{n} {what}"));
            }
        }
        Some(format!(
            "{hidden} of {} tokens are outside the code window: {}",
            self.fates.len(),
            parts.join(", ")
        ))
    }

    /// Runs of lines with one fate each: first line, last line, fate, tokens. A line has the fate of most of its tokens.
    fn runs(&self) -> Vec<(u32, u32, Fate, Range<usize>)> {
        let mut runs: Vec<(u32, u32, Fate, Range<usize>)> = Vec::new();
        let mut at = 0;
        while at < self.lines.len() {
            let line = self.lines[at];
            let end = self.lines[at..].iter().take_while(|&&other| other == line).count() + at;
            let of = |fate: &Fate| self.fates[at..end].iter().filter(|&other| other == fate).count();
            let fate = FATES.map(|row| row.0).into_iter().max_by_key(of).unwrap_or(Fate::Seen);
            match runs.last_mut() {
                Some((_, last, same, tokens)) if *same == fate && line >= *last => {
                    (*last, tokens.end) = (line, end);
                }
                _ => runs.push((line, line, fate, at..end)),
            }
            at = end;
        }
        runs
    }

    /// How often, of all layers and KV heads, queries chose the pages of these tokens: the mean.
    fn times(&self, tokens: Range<usize>) -> Option<u64> {
        let counts = self.chosen.get(tokens.clone())?;
        Some(counts.iter().sum::<u64>() / counts.len().max(1) as u64)
    }

    /// Line ranges and what became of them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (first, last, fate, tokens) in self.runs() {
            let word = FATES.iter().find(|row| row.0 == fate).map_or("", |row| row.1);
            let times = self.times(tokens).filter(|_| fate == Fate::Chosen);
            let times = times.map_or_else(String::new, |times| format!(" ({times} times)"));
            let _ = match first == last {
                true => writeln!(text, "line {}: {word}{times}", first + 1),
                false => writeln!(text, "lines {} to {}: {word}{times}", first + 1, last + 1),
            };
        }
        text
    }

    /// A picture: one bar per token, line under line, `source` beside it.
    pub fn svg(&self, source: &str) -> String {
        const ROW: usize = 13;
        const TOKEN: usize = 4;
        const TEXT: usize = 300;
        let rows = self.lines.iter().max().map_or(0, |&line| line as usize + 1);
        let top = 30 + ROW * FATES.len();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1100\" height=\"{}\" font-family=\"monospace\" \
             font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            top + ROW * rows + 10
        );
        for (i, (fate, word, colour)) in FATES.iter().enumerate() {
            let y = 12 + ROW * i;
            let n = self.count(&[*fate]);
            let _ = writeln!(
                svg,
                "<rect x=\"10\" y=\"{y}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
                 <text x=\"26\" y=\"{}\">{word}: {n} tokens</text>",
                y + 9
            );
        }
        let most = self.chosen.iter().copied().max().unwrap_or(0).max(1) as f64;
        let mut column = 0;
        let mut before = None;
        for (i, (&line, &fate)) in self.lines.iter().zip(&self.fates).enumerate() {
            column = if before == Some(line) { column + 1 } else { 0 };
            before = Some(line);
            let colour = FATES.iter().find(|row| row.0 == fate).map_or("", |row| row.2);
            // The more often a page was chosen, the fuller its colour; the root, for a few pages are chosen most of the time.
            let (opacity, title) = match self.chosen.get(i).filter(|_| fate == Fate::Chosen) {
                None => (1.0, String::new()),
                Some(&n) => {
                    (0.15 + 0.85 * (n as f64 / most).sqrt(), format!("<title>chosen {n} times</title>"))
                }
            };
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{colour}\" fill-opacity=\"{opacity:.2}\">{title}</rect>",
                TEXT + 10 + column * TOKEN,
                top + ROW * line as usize,
                TOKEN - 1,
                ROW - 2
            );
        }
        for (i, line) in source.lines().take(rows).enumerate() {
            let line: String = line.chars().take(46).filter(|c| !c.is_control() || *c == '\t').collect();
            let line = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let y = top + ROW * i + ROW - 4;
            let _ = writeln!(svg, "<text x=\"10\" y=\"{y}\" xml:space=\"preserve\">{line}</text>");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_sentences() {
        let seen = Seen {
            lines: vec![0, 0, 1, 1, 1, 2, 3],
            fates: vec![
                Fate::Pinned,
                Fate::Pinned,
                Fate::Chosen,
                Fate::Chosen,
                Fate::Seen,
                Fate::Chosen,
                Fate::Seen,
            ],
            chosen: vec![],
        };
        let text =
            "line 1: pinned\nlines 2 to 3: seen where a query chooses its page\nline 4: in the window\n";
        assert_eq!(seen.text(), text);
        let sentence = seen.sentence().unwrap();
        assert_eq!(
            sentence,
            "5 of 7 tokens are outside the code window: 2 pinned, 3 seen where a query chooses their pages"
        );
        let counted = Seen { chosen: vec![0, 0, 8, 4, 0, 16, 0], ..seen.clone() };
        assert!(counted.text().contains("chooses its page (7 times)"), "{}", counted.text());
        assert!(
            counted.svg("").contains("fill-opacity=\"0.57\"><title>chosen 4 times</title>"),
            "half the root of 16"
        );
        let svg = seen.svg("a < b\n");
        assert!(svg.contains("a &lt; b") && svg.matches("<rect").count() == 1 + 5 + 7);
        assert_eq!(Seen { fates: vec![Fate::Seen; 2], lines: vec![0, 0], chosen: vec![] }.sentence(), None);
    }
}
