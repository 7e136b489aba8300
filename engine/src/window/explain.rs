//! What a window showed and what it did not, as text and as a picture.

use std::fmt::Write;
use std::ops::Range;

use super::reader::{Fate, Seen};

/// Every fate: its word, and its colour in the picture.
const FATES: [(Fate, &str, &str); 5] = [
    (Fate::Seen, "always seen", "#4878a8"),
    (Fate::Pinned, "pinned", "#d98c2b"),
    (Fate::Chosen, "seen where a query chooses its page", "#3a8f5a"),
    (Fate::Unseen, "not seen", "#e4e4e4"),
    (Fate::Folded, "folded: each head keeps what it attends to", "#b05050"),
];

fn word(fate: Fate) -> &'static str {
    FATES.iter().find(|row| row.0 == fate).map_or("", |row| row.1)
}

fn colour(fate: Fate) -> &'static str {
    FATES.iter().find(|row| row.0 == fate).map_or("", |row| row.2)
}

/// Pixels of the picture: its margin, the height of a line, a character, and a token's bar with the gap after it.
const MARGIN: usize = 10;
const ROW: usize = 13;
const CHAR: usize = 6;
const BAR: usize = 4;

/// Longer lines are cut, and so are those of more tokens; both say so.
const MOST_CHARS: usize = 100;
const MOST_BARS: usize = 200;

/// Length of the one bar of a line whose tokens are not known.
const UNKNOWN_BARS: usize = 16;

const TAB: usize = 4;

/// A line of the picture: its text, and its tokens where they are known.
struct Row {
    text: String,
    tokens: Vec<usize>,
}

/// A line of text as the picture shows it: tabs as spaces, nothing that XML does not take, and cut where it is long.
fn shown(line: &str) -> String {
    let mut shown = Vec::new();
    for c in line.chars() {
        match c {
            '\t' => shown.resize((shown.len() / TAB + 1) * TAB, ' '),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    if shown.len() > MOST_CHARS {
        shown.truncate(MOST_CHARS - 1);
        shown.push('…');
    }
    shown.into_iter().collect()
}

/// The more often a page was chosen, of `most` times, the fuller its colour; the root, for a few pages are chosen most of the time.
fn fullness(times: u64, most: u64) -> f64 {
    0.15 + 0.85 * (times as f64 / most.max(1) as f64).sqrt()
}

fn write_text(svg: &mut String, x: usize, y: usize, attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\"{attributes}>{text}</text>", y + ROW - 4);
}

/// A bar that is `bars` tokens long; `title` is what a pointer over it shows.
fn write_bar(svg: &mut String, x: usize, y: usize, bars: usize, fill: &str, opacity: f64, title: &str) {
    let (width, height) = (bars * BAR - 1, ROW - 2);
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\" fill-opacity=\"{opacity:.2}\">{title}</rect>"
    );
}

impl Seen {
    /// Whether there is anything the next query may not see.
    fn hides(&self) -> bool {
        let beside = self.count(&[Fate::Pinned, Fate::Chosen, Fate::Unseen]);
        self.count(&[Fate::Folded]) > 0 || (beside > 0 && self.most <= self.fates.len())
    }

    /// One sentence, where not everything is always seen.
    pub fn sentence(&self) -> Option<String> {
        if !self.hides() {
            return None;
        }
        let Seen { policy, most, .. } = self;
        let what = match (self.count(&[Fate::Folded]), self.count(&[Fate::Chosen])) {
            (0, 0) => format!("each query sees at most {most} ({policy}); the others are not seen"),
            (0, _) => format!("each query sees at most {most} ({policy}); nothing is dropped"),
            (folded, _) => format!("{most} cells are kept in memory ({policy}); {folded} tokens are folded"),
        };
        let n = self.fates.len();
        Some(format!("code window: of {n} tokens {what}; --kv-policy full without --kv-budget shows all"))
    }

    /// The sentence where everything is seen.
    fn all(&self) -> String {
        let n = self.fates.len();
        let why = if self.policy.is_empty() { "no code window" } else { "the code window has room for them" };
        let own = match self.own_window {
            0 => String::new(),
            window if window >= n => String::new(),
            window => format!("; layers with a window of their own see the last {window}"),
        };
        format!("all {n} tokens are seen ({why}){own}")
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
        if !self.hides() {
            return self.all() + "\n";
        }
        let mut text = String::new();
        for (first, last, fate, tokens) in self.runs() {
            let word = word(fate);
            let times = self.times(tokens).filter(|_| fate == Fate::Chosen);
            let times = times.map_or_else(String::new, |times| format!(" ({times} times)"));
            let _ = match first == last {
                true => writeln!(text, "line {}: {word}{times}", first + 1),
                false => writeln!(text, "lines {} to {}: {word}{times}", first + 1, last + 1),
            };
        }
        text
    }

    /// A picture: line under line of `source`, and beside each of them one bar per token.
    pub fn svg(&self, source: &str) -> String {
        let (rows, legend) = (self.rows(source), self.legend());
        let title = format!("What the next token sees of {} tokens", self.fates.len());
        let sentence = self.sentence().unwrap_or_else(|| self.all());
        let top = MARGIN + ROW * (legend.len() + 3);
        let numbers = MARGIN + CHAR * rows.len().to_string().len();
        let texts = numbers + 2 * CHAR;
        let chars = rows.iter().map(|row| row.text.chars().count()).max().unwrap_or(0);
        let bars = texts + CHAR * (chars + 2);
        let longest = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        // Behind the bars of a line that is cut there is room for how many more there are.
        let right = bars + BAR * longest.clamp(UNKNOWN_BARS, MOST_BARS) + 12 * CHAR;
        let width = right.max(2 * MARGIN + CHAR * sentence.chars().count());
        let height = top + ROW * rows.len() + MARGIN;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"monospace\" \
             font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        write_text(&mut svg, MARGIN, MARGIN, " font-weight=\"bold\"", &title);
        write_text(&mut svg, MARGIN, MARGIN + ROW, "", &sentence);
        for (i, (fill, opacities, text)) in legend.iter().enumerate() {
            let y = MARGIN + ROW * (i + 2);
            for (j, &opacity) in opacities.iter().enumerate() {
                write_bar(&mut svg, MARGIN + BAR * j, y, 1, fill, opacity, "");
            }
            write_text(&mut svg, MARGIN + BAR * 3 + CHAR, y, "", text);
        }
        // A picture in the picture, which ends where bars begin: some characters are wider than others.
        let _ = writeln!(svg, "<svg width=\"{}\" height=\"{height}\">", bars - CHAR);
        for (i, row) in rows.iter().enumerate() {
            let y = top + ROW * i;
            write_text(&mut svg, numbers, y, " text-anchor=\"end\" fill=\"#888\"", &(i + 1).to_string());
            write_text(&mut svg, texts, y, " xml:space=\"preserve\"", &row.text);
        }
        svg.push_str("</svg>\n");
        let most_chosen = self.most_chosen();
        for (i, row) in rows.iter().enumerate() {
            self.write_bars(&mut svg, bars, top + ROW * i, row, most_chosen);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The lines of the picture. Where nobody read the text, everything is seen, and `source` says what its lines are.
    fn rows(&self, source: &str) -> Vec<Row> {
        let known = self.lines.iter().max().map(|&line| line as usize + 1);
        let mut texts = source.lines();
        let mut rows: Vec<Row> = (0..known.unwrap_or_else(|| source.lines().count()))
            .map(|_| Row { text: texts.next().map_or_else(String::new, shown), tokens: Vec::new() })
            .collect();
        for (token, &line) in self.lines.iter().enumerate() {
            rows[line as usize].tokens.push(token);
        }
        rows
    }

    /// What colours mean: a colour, how full it is, and its text.
    fn legend(&self) -> Vec<(&'static str, [f64; 3], String)> {
        let mut legend = Vec::new();
        for (fate, word, colour) in FATES {
            let n = self.count(&[fate]);
            if n > 0 {
                let tokens = if n == 1 { "token" } else { "tokens" };
                legend.push((colour, [1.0; 3], format!("{word}: {n} {tokens}")));
            }
        }
        if self.count(&[Fate::Chosen]) > 0 && !self.chosen.is_empty() {
            let most = self.most_chosen();
            let text = format!("the fuller the colour, the more often chosen (at most {most} times)");
            legend.push((colour(Fate::Chosen), [0, most / 4, most].map(|times| fullness(times, most)), text));
        }
        legend
    }

    fn most_chosen(&self) -> u64 {
        self.chosen.iter().copied().max().unwrap_or(0)
    }

    fn write_bars(&self, svg: &mut String, left: usize, y: usize, row: &Row, most_chosen: u64) {
        if self.lines.is_empty() && !row.text.is_empty() {
            write_bar(svg, left, y, UNKNOWN_BARS, colour(Fate::Seen), 1.0, "");
        }
        for (column, &token) in row.tokens.iter().take(MOST_BARS).enumerate() {
            let fate = self.fates.get(token).copied().unwrap_or(Fate::Seen);
            let (opacity, title) = match self.chosen.get(token).filter(|_| fate == Fate::Chosen) {
                None => (1.0, String::new()),
                Some(&times) => {
                    (fullness(times, most_chosen), format!("<title>chosen {times} times</title>"))
                }
            };
            write_bar(svg, left + BAR * column, y, 1, colour(fate), opacity, &title);
        }
        if row.tokens.len() > MOST_BARS {
            let more = format!("+{} more", row.tokens.len() - MOST_BARS);
            write_text(svg, left + BAR * MOST_BARS + CHAR, y, "", &more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Seen {
        let (pinned, chosen, seen) = (Fate::Pinned, Fate::Chosen, Fate::Seen);
        Seen {
            lines: vec![0, 0, 1, 1, 1, 2, 3],
            fates: vec![pinned, pinned, chosen, chosen, seen, chosen, seen],
            policy: "structure",
            most: 6,
            ..Seen::default()
        }
    }

    #[test]
    fn lines_and_their_fates() {
        let seen = some();
        let text = "line 1: pinned\nlines 2 to 3: seen where a query chooses its page\nline 4: always seen\n";
        assert_eq!(seen.text(), text);
        let counted = Seen { chosen: vec![0, 0, 8, 4, 0, 16, 0], ..seen };
        assert!(counted.text().contains("chooses its page (7 times)"), "{}", counted.text());
    }

    #[test]
    fn sentences() {
        let sentence = |seen: Seen| seen.sentence().unwrap_or_default();
        let all = "; --kv-policy full without --kv-budget shows all";
        let pages = "code window: of 7 tokens each query sees at most 6 (structure); nothing is dropped";
        assert_eq!(sentence(some()), format!("{pages}{all}"));
        let fates = vec![Fate::Unseen, Fate::Unseen, Fate::Seen, Fate::Seen];
        let window = Seen { fates, policy: "window", most: 3, ..Seen::default() };
        let want = "code window: of 4 tokens each query sees at most 3 (window); the others are not seen";
        assert_eq!(sentence(window), format!("{want}{all}"));
        let fates = vec![Fate::Folded, Fate::Folded, Fate::Folded, Fate::Seen];
        let fold = Seen { fates, policy: "fold", most: 2, ..Seen::default() };
        let want = "code window: of 4 tokens 2 cells are kept in memory (fold); 3 tokens are folded";
        assert_eq!(sentence(fold), format!("{want}{all}"));
    }

    #[test]
    fn nothing_is_hidden_without_need() {
        let whole = Seen { fates: vec![Fate::Seen; 2], lines: vec![0, 1], most: 2, ..Seen::default() };
        assert_eq!(whole.sentence(), None);
        assert_eq!(whole.text(), "all 2 tokens are seen (no code window)\n");
        assert!(whole.svg("a\nb\n").contains(">all 2 tokens are seen (no code window)<"));
        let own = Seen { own_window: 1, ..whole };
        assert!(
            own.text().ends_with("; layers with a window of their own see the last 1\n"),
            "{}",
            own.text()
        );
        let roomy = Seen { most: 8, ..some() };
        assert_eq!(roomy.sentence(), None);
        assert_eq!(roomy.text(), "all 7 tokens are seen (the code window has room for them)\n");
    }

    #[test]
    fn pictures_show_lines_and_what_colours_mean() {
        let seen = some();
        let svg = seen.svg("a < b\n\tc\n");
        assert!(svg.contains(">What the next token sees of 7 tokens<") && svg.contains(">a &lt; b<"));
        assert!(
            svg.contains(">    c<") && svg.contains(">4</text>"),
            "tabs are spaces, and lines have numbers"
        );
        assert!(
            svg.contains(">pinned: 2 tokens<") && !svg.contains("folded"),
            "the legend is of what there is"
        );
        assert_eq!(svg.matches("<rect").count(), 1 + 3 * 3 + 7);
        assert!(!svg.contains("the fuller"), "nobody counted");
        let counted = Seen { chosen: vec![0, 0, 8, 4, 0, 16, 0], ..seen };
        let svg = counted.svg("");
        assert!(svg.contains("fill-opacity=\"0.57\"><title>chosen 4 times</title>"), "half the root of 16");
        assert!(svg.contains("the fuller the colour, the more often chosen (at most 16 times)"));
    }

    #[test]
    fn pictures_cut_what_is_long() {
        let n = MOST_BARS + 30;
        let long = Seen { lines: vec![0; n], fates: vec![Fate::Seen; n], most: n, ..Seen::default() };
        let svg = long.svg(&"x".repeat(MOST_CHARS + 1));
        assert!(svg.contains(">+30 more<") && svg.contains("x…<"));
        assert_eq!(svg.matches("<rect").count(), 1 + 3 + MOST_BARS);
        assert!(!svg.contains(&"x".repeat(MOST_CHARS)));
        // Bars begin after the text: the margin, a digit and two spaces, the text and two spaces.
        let bars = MARGIN + CHAR * (3 + MOST_CHARS + 2);
        assert!(svg.contains(&format!("<rect x=\"{bars}\"")), "{svg}");
    }

    #[test]
    fn pictures_of_text_that_nobody_read_have_a_bar_a_line() {
        let unread = Seen { fates: vec![Fate::Seen; 9], most: 9, ..Seen::default() };
        let svg = unread.svg("a\n\nb\n");
        assert_eq!(svg.matches("<rect").count(), 1 + 3 + 2);
        assert!(svg.contains(">3</text>") && !svg.contains(">4</text>"));
    }
}
