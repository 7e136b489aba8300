//! What learning a vocabulary needs to know of it while it is in the making.

use super::TokenClass::Structure;
use super::keywords::{self, Words};
use super::lexer::Lexer;
use super::{HALF, Hybrid, HybridSpec, MAX_TEMPLATE, TokenClass, class_of};
use crate::text::{Scratch, TokenizerError};

/// Cuts texts into spans, for learning a vocabulary from them.
pub struct Splitter {
    words: Words,
    shuffled: bool,
    structure: Vec<u8>,
}

impl Splitter {
    /// With the keywords of a vocabulary in the making.
    pub fn new(spec: &HybridSpec) -> Splitter {
        Splitter { words: Words::new(&spec.keywords, 0), shuffled: spec.shuffled, structure: Vec::new() }
    }

    /// The class and the key of every span of a whole text, in order.
    pub fn split(&mut self, text: &[u8], mut emit: impl FnMut(TokenClass, &[u8])) {
        let shuffled = self.shuffled;
        let emit = |class, key: &[u8]| emit(class_of(class, key, shuffled), key);
        Lexer::default().run(&self.words, text, &mut self.structure, emit);
    }
}

impl HybridSpec {
    /// Every keyword there is.
    pub fn all_keywords() -> Vec<String> {
        keywords::words().map(|(word, _)| word.to_owned()).collect()
    }

    /// The ids of the symbols that a span begins as, before any merge, part by part.
    ///
    /// # Errors
    /// Where the vocabulary is not sound.
    pub fn initial(&self) -> Result<Initial, TokenizerError> {
        Hybrid::new(self).map(Initial)
    }
}

/// See [`HybridSpec::initial`].
pub struct Initial(Hybrid);

impl Initial {
    /// The symbols that a part, or a span of structure, begins as.
    pub fn symbols(&self, class: TokenClass, key: &[u8]) -> Vec<u32> {
        let mut ids = Vec::new();
        if class == Structure {
            self.0.atoms(key, |id, _| ids.push(id));
        } else {
            let symbols = &self.0.symbols[class.merging().unwrap_or(0)];
            ids.extend(key.iter().map(|&byte| symbols[usize::from(byte)]));
        }
        ids
    }

    /// The runs of spans of one class in a whole text, as the ids of their parts; `true` for those that are whole parts.
    pub fn runs(&self, text: &[u8], mut each: impl FnMut(TokenClass, &[(u32, bool)])) {
        let mut ids = Vec::new();
        let mut scratch = Scratch::default();
        self.0.runs(&mut Lexer::default(), text, &mut scratch, |class, run, _| {
            ids.clear();
            ids.extend(run.iter().map(|&id| (id & !HALF, id & HALF == 0)));
            each(class, &ids);
        });
    }

    /// Length of a token's template in bytes: no join may exceed [`Initial::MAX_BYTES`].
    pub fn template_len(&self, id: u32) -> usize {
        self.0.template(id).len()
    }

    /// Longest token.
    pub const MAX_BYTES: usize = MAX_TEMPLATE;

    /// First id of every class of [`TokenClass::ALL`], and the end.
    pub fn starts(&self) -> [u32; 7] {
        self.0.starts
    }
}
