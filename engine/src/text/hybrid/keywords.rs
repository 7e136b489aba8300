//! The closed vocabulary of words: keywords of the languages people use, equal ones shared, and what each says about the
//! language of the text.

/// Ways to write comments and quotes, as far as the lexer must tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `# comment`, `'text'`, `"""text"""`: Python, and configuration files.
    Hash,
    /// `// comment`, `'a` may be a lifetime, texts may span lines: Rust.
    Rust,
    /// `// comment`, `'text'`: C, C++, Java, Go, JavaScript, TypeScript.
    Slash,
}

use Family::{Hash, Rust, Slash};

use crate::text::vocab::hash;

/// Words by what they hint at.
const WORDS: [(Option<Family>, &str); 4] = [
    (Some(Hash), "def elif except lambda nonlocal pass raise None True False del global cls"),
    (Some(Rust), "fn mut impl pub crate dyn Self unsafe macro_rules"),
    (
        Some(Slash),
        "function var typeof instanceof undefined void sizeof typedef switch namespace template typename virtual \
         private throws extends implements func chan include define ifdef ifndef endif nullptr",
    ),
    (
        None,
        "and as assert async await bool boolean break byte case catch char class const continue default defer do \
         double else enum error export extern false final finally float for from go goto if import in inline int \
         interface is let long loop map match mod move new nil not null operator or package pragma protected public \
         range ref return self short signed static string struct super this throw trait true try type union unsigned \
         use where while with yield f r b rb br u c cr",
    ),
];

/// Every word, and what it hints at.
pub(super) fn words() -> impl Iterator<Item = (&'static str, Option<Family>)> {
    WORDS.iter().flat_map(|&(family, words)| words.split_ascii_whitespace().map(move |word| (word, family)))
}

/// Words that are prefixes of literals and nothing else: operators only where a quote follows.
fn is_prefix(word: &[u8]) -> bool {
    matches!(word, b"f" | b"r" | b"b" | b"rb" | b"br" | b"u" | b"c" | b"cr")
}

/// What a word hints at.
fn hint(word: &[u8]) -> Option<Family> {
    words().find(|(other, _)| other.as_bytes() == word).and_then(|(_, family)| family)
}

/// A word of the closed vocabulary.
#[derive(Clone, Copy)]
pub(super) struct Word {
    pub(super) id: u32,
    pub(super) hint: Option<Family>,
    /// Whether it is one only before a quote.
    pub(super) prefix: bool,
}

/// The words of the closed vocabulary, by their bytes.
pub(super) struct Words {
    list: Vec<(Vec<u8>, Word)>,
    /// One more than the place in the list, 0 for none; at the hash's place or after it.
    slots: Vec<u16>,
    longest: usize,
}

impl Words {
    pub(super) fn new(words: &[String], first_id: u32) -> Words {
        let mut table = Words {
            list: Vec::new(),
            slots: vec![0; (words.len() * 4 + 4).next_power_of_two()],
            longest: words.iter().map(String::len).max().unwrap_or(0),
        };
        for (id, word) in (first_id..).zip(words) {
            let word = word.as_bytes();
            let place = table.place(word);
            if table.slots[place] == 0 {
                let entry = Word { id, hint: hint(word), prefix: is_prefix(word) };
                table.list.push((word.to_vec(), entry));
                table.slots[place] = table.list.len() as u16;
            }
        }
        table
    }

    fn place(&self, word: &[u8]) -> usize {
        let mut place = hash(word, 0) as usize & (self.slots.len() - 1);
        while let n @ 1.. = self.slots[place]
            && self.list[usize::from(n) - 1].0 != word
        {
            place = (place + 1) & (self.slots.len() - 1);
        }
        place
    }

    #[inline]
    pub(super) fn find(&self, word: &[u8]) -> Option<Word> {
        if word.len() > self.longest {
            return None;
        }
        let n = self.slots[self.place(word)];
        Some(self.list[usize::from(n).checked_sub(1)?].1)
    }
}
