//! How much of a long text the code window shows by default: all of it up to 8K tokens, and beyond that as much as the
//! open scope needs, up to 32K.

use std::collections::HashSet;

use crate::code::{Language, Scanner};

/// Up to here everything is seen.
pub const FULL_BUDGET: usize = 8 << 10;
/// Beyond here nothing is added.
const MOST: usize = 32 << 10;
/// What one outer name is worth: where it is defined and where it was last used, four pages each.
const CELLS_PER_NAME: usize = 128;

/// The budget for continuing `text`: the base, and more for every distinct name that the outermost open scope uses and
/// the text before that scope has.
pub fn dynamic_budget(language: &'static Language, text: &str) -> usize {
    let mut scanner = Scanner::new(language);
    scanner.feed(text.as_bytes());
    let Some(outermost) = scanner.open_scopes().first() else { return FULL_BUDGET };
    let first = scanner.scopes()[outermost.0 as usize].header.start as usize;
    let start = scanner.lines().get(first).map_or(text.len(), |line| line.start);
    let (before, scope) = text.split_at(text.floor_char_boundary(start));
    let names = |text: &'_ str| -> HashSet<String> {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| word.len() > 2).map(str::to_owned).collect()
    };
    let outer = names(before).intersection(&names(scope)).count();
    (FULL_BUDGET + outer * CELLS_PER_NAME).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_names_of_the_open_scope_widen_the_window() {
        let python = Language::named("python").unwrap();
        assert_eq!(dynamic_budget(python, ""), FULL_BUDGET);
        assert_eq!(dynamic_budget(python, "alpha = 1\nbeta = 2\n"), FULL_BUDGET, "no scope is open");
        let text = "alpha = 1\nbeta = 2\ndef f():\n    return alpha + beta + alpha + gamma";
        assert_eq!(dynamic_budget(python, text), FULL_BUDGET + 2 * CELLS_PER_NAME);
        let many: String = (0..1000).map(|i| format!("name{i} = {i}\n")).collect();
        let used: String = (0..1000).map(|i| format!("    name{i}\n")).collect();
        assert_eq!(dynamic_budget(python, &format!("{many}def f():\n{used}")), MOST);
    }
}
