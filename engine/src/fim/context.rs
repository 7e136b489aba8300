//! What a hole needs of other files: signatures of the names around it first, bodies as room allows.

use std::collections::HashSet;
use std::time::Duration;

use crate::code::{Language, Structure, exact};

/// How long a file may take to parse; beyond it the causal scanner serves.
const BUDGET: Duration = Duration::from_millis(300);

/// Lines around the hole whose names count.
const NEAR: usize = 60;

/// Names of three letters or more.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| name.len() > 2)
}

/// The names used around a hole.
pub fn names_near<'a>(prefix: &'a str, suffix: &'a str) -> HashSet<&'a str> {
    let before = prefix.lines().rev().take(NEAR);
    let after = suffix.lines().take(NEAR / 3);
    before.chain(after).flat_map(names).collect()
}

/// A file cut to at most `room` bytes: headers of scopes that are named in `wanted`, then all other headers and the
/// imports, then the bodies of the wanted ones; in the order of the file.
pub fn digest(language: &'static Language, source: &str, wanted: &HashSet<&str>, room: usize) -> String {
    if source.len() <= room {
        return source.to_owned();
    }
    let structure = exact(language, source.as_bytes(), BUDGET)
        .unwrap_or_else(|| Structure::scan(language, source.as_bytes()));
    let lines: Vec<&str> = source.split_inclusive('\n').collect();
    let mut kept = vec![false; lines.len()];
    let mut left = room;
    let mut keep = |range: std::ops::Range<u32>| {
        let range = range.start as usize..(range.end as usize).min(lines.len());
        let cost: usize = range.clone().filter(|&i| !kept[i]).map(|i| lines[i].len()).sum();
        if cost <= left {
            left -= cost;
            range.for_each(|i| kept[i] = true);
        }
    };
    // `h` of `A::h`, and `Map` of `Map<Key>`.
    let is_wanted = |name: &str| {
        let name = name.split('<').next().unwrap_or(name);
        names(name).last().is_some_and(|name| wanted.contains(name))
    };
    let (named, others): (Vec<_>, Vec<_>) = structure.scopes.iter().partition(|scope| is_wanted(&scope.name));
    named.iter().for_each(|scope| keep(scope.header.clone()));
    others.iter().for_each(|scope| keep(scope.header.clone()));
    for (i, line) in structure.lines.iter().enumerate().filter(|(_, line)| line.pinned()) {
        debug_assert!(line.start <= source.len());
        keep(i as u32..i as u32 + 1);
    }
    for scope in named {
        keep(scope.header.start..scope.end.unwrap_or(structure.lines.len() as u32));
    }
    lines.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(line, _)| *line).collect()
}

/// The last whole lines of `text` that come to at most `room` tokens, the line with the hole always.
pub fn fit_end<'a>(text: &'a str, room: usize, count: &dyn Fn(&str) -> usize) -> &'a str {
    let mut from = 0;
    while count(&text[from..]) > room {
        // Half of what is too much goes, at least a line.
        let over = text.len() - from - (text.len() - from) * room / count(&text[from..]).max(1);
        let at = text.floor_char_boundary((from + over / 2).max(from + 1));
        match text[at..].find('\n') {
            Some(end) if at + end + 1 < text.len() => from = at + end + 1,
            _ => return &text[text.rfind('\n').map_or(0, |end| end + 1)..],
        }
    }
    &text[from..]
}

/// The first whole lines of `text` that come to at most `room` tokens, the rest of the first line always.
pub fn fit_start<'a>(text: &'a str, room: usize, count: &dyn Fn(&str) -> usize) -> &'a str {
    let mut to = text.len();
    while count(&text[..to]) > room {
        let over = to - to * room / count(&text[..to]).max(1);
        let at = text.floor_char_boundary(to.saturating_sub((over / 2).max(1)));
        match text[..at].rfind('\n') {
            Some(end) if end > 0 => to = end,
            _ => return &text[..text.find('\n').unwrap_or(text.len())],
        }
    }
    &text[..to]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_come_first_and_bodies_as_room_allows() {
        let python = Language::named("python").unwrap();
        let source = "import os\n\ndef used(a, b):\n    return a + b\n\ndef other(c):\n    x = 1\n    y = 2\n    return c + x + y\n";
        let near = names_near("z = used(1, ", ")");
        assert!(near.contains("used"));
        assert_eq!(digest(python, source, &near, 1000), source);
        assert_eq!(digest(python, source, &near, 20), "def used(a, b):\n");
        assert_eq!(digest(python, source, &near, 45), "import os\ndef used(a, b):\ndef other(c):\n");
        let with_body = "import os\ndef used(a, b):\n    return a + b\ndef other(c):\n";
        assert_eq!(digest(python, source, &near, 62), with_body);
    }

    /// Names are found behind pointers, in other scopes and in assignments.
    #[test]
    fn what_is_wanted_is_known_by_its_last_name() {
        for (language, wanted, other) in [
            ("cpp", "T *A::used(int x) {\n}\n", "int other(int x) {\n}\n"),
            ("javascript", "const used = (a) => {\n}\n", "function other(a) {\n}\n"),
        ] {
            let language = Language::named(language).unwrap();
            let header = wanted.split_inclusive('\n').next().unwrap();
            let near = names_near("z = used(1, ", ")");
            assert_eq!(digest(language, &format!("{other}{wanted}"), &near, header.len()), header);
        }
    }

    #[test]
    fn texts_are_cut_at_lines() {
        let count = |text: &str| text.split_whitespace().count();
        let text = "a b\nc d\ne f\ng";
        for (room, end, start) in
            [(9, text, text), (5, "c d\ne f\ng", "a b\nc d"), (1, "g", "a b"), (0, "g", "a b")]
        {
            assert_eq!(fit_end(text, room, &count), end, "{room}");
            assert_eq!(fit_start(text, room, &count), start, "{room}");
        }
        assert_eq!(fit_end("", 3, &count), "");
        assert_eq!(fit_start("no end", 1, &count), "no end");
    }
}
