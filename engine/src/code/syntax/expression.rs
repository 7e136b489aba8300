//! Values and operators take turns (Python): which token may follow which, without regard to what they are part of.

/// What came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// A statement begins.
    Start,
    /// Anything may come.
    Any,
    Name,
    Number,
    Text,
    Close,
    Keyword,
    Open,
    Comma,
    /// `:` or `;`.
    Colon,
    /// After which a value must come.
    Operator,
    /// `*` or `**` before a value, or alone between commas.
    Star,
    /// After a value: a name must come.
    Dot,
}

/// Follows the tokens of one logical line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expression {
    last: Last,
    /// What came before the operator that is being read, and its bytes so far.
    before: Last,
    operator: [u8; 3],
    operator_len: usize,
}

const KEYWORDS: [&[u8]; 29] = [
    b"and",
    b"as",
    b"assert",
    b"async",
    b"await",
    b"class",
    b"def",
    b"del",
    b"elif",
    b"else",
    b"except",
    b"finally",
    b"for",
    b"from",
    b"global",
    b"if",
    b"import",
    b"in",
    b"is",
    b"lambda",
    b"nonlocal",
    b"not",
    b"or",
    b"raise",
    b"return",
    b"try",
    b"while",
    b"with",
    b"yield",
];

/// Keywords that may come after a value.
const AFTER_VALUE: [&[u8]; 12] =
    [b"and", b"as", b"async", b"else", b"for", b"from", b"if", b"import", b"in", b"is", b"not", b"or"];

/// First words that are names as well.
const SOFT: [&[u8]; 3] = [b"match", b"case", b"type"];

const OPERATORS: [&[u8]; 36] = [
    b":=", b"->", b"+", b"-", b"*", b"/", b"//", b"%", b"@", b"**", b"<<", b">>", b"&", b"|", b"^", b"~",
    b"<", b">", b"<=", b">=", b"==", b"!=", b"=", b"+=", b"-=", b"*=", b"/=", b"//=", b"%=", b"@=", b"&=",
    b"|=", b"^=", b">>=", b"<<=", b"**=",
];

/// `1if`, `0for`: digits and a keyword need no space between them.
fn is_number_and_keyword(word: &[u8]) -> bool {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && AFTER_VALUE.contains(&&word[digits..])
}

/// Whether a word is the prefix of a literal, or none.
pub(super) fn is_prefix(word: &[u8]) -> bool {
    word.len() <= 2 && word.iter().all(|byte| b"rRbBuUfFtT".contains(byte))
}

impl Default for Expression {
    fn default() -> Expression {
        Expression { last: Last::Start, before: Last::Start, operator: [0; 3], operator_len: 0 }
    }
}

impl Expression {
    fn after_value(&self) -> bool {
        matches!(self.last, Last::Name | Last::Number | Last::Text | Last::Close)
    }

    /// Another token than an operator begins, or white space.
    pub(super) fn pause(&mut self) {
        self.operator_len = 0;
    }

    /// Whether a word may be the prefix of another literal right behind the last one.
    pub(super) fn may_be_prefix(&self, word: &[u8]) -> bool {
        self.last == Last::Text && is_prefix(word)
    }

    /// Whether a word may begin like this.
    pub(super) fn may_begin(&self, word: &[u8]) -> bool {
        let digit = word.first().is_some_and(u8::is_ascii_digit);
        if word.contains(&b'$') || (self.last == Last::Dot && digit) {
            return false;
        }
        !self.after_value()
            || self.may_be_prefix(word)
            || AFTER_VALUE.iter().any(|keyword| keyword.starts_with(word))
    }

    /// A word, the `first` of its statement or not; whether it may come here.
    pub(super) fn word(&mut self, word: &[u8], first: bool) -> bool {
        self.pause();
        let allowed = !self.after_value() || AFTER_VALUE.contains(&word);
        self.last = match word {
            _ if self.last == Last::Dot => Last::Name,
            _ if (first || self.last == Last::Colon) && SOFT.contains(&word) => Last::Any,
            _ if is_number_and_keyword(word) => Last::Keyword,
            _ if KEYWORDS.contains(&word) => Last::Keyword,
            _ if word.first().is_some_and(u8::is_ascii_digit) => Last::Number,
            _ => Last::Name,
        };
        allowed
    }

    /// A literal with its prefix; whether it may come here.
    pub(super) fn text(&mut self) -> bool {
        self.pause();
        let allowed = !self.after_value() || self.last == Last::Text;
        self.last = Last::Text;
        allowed
    }

    /// A byte that is part of no word and no literal, in a `header` or not; whether it may come here.
    pub(super) fn punctuation(&mut self, byte: u8, header: bool) -> bool {
        let begins = self.operator_len == 0;
        if begins {
            self.before = self.last;
        }
        match byte {
            b'(' | b'[' | b'{' => {
                self.pause();
                let allowed = self.last != Last::Dot && !(byte == b'{' && self.after_value());
                self.last = Last::Open;
                allowed
            }
            b')' | b']' | b'}' => {
                self.pause();
                let allowed = !matches!(self.last, Last::Operator | Last::Star | Last::Dot);
                self.last = Last::Close;
                allowed
            }
            b',' | b';' => {
                self.pause();
                let twice = byte == b',' && self.last == Last::Comma;
                let allowed = !twice && !matches!(self.last, Last::Operator | Last::Open | Last::Dot);
                self.last = if byte == b',' { Last::Comma } else { Last::Colon };
                allowed
            }
            b'.' => {
                self.pause();
                let allowed = self.last != Last::Dot;
                self.last = match self.last {
                    Last::Name | Last::Text | Last::Close => Last::Dot,
                    // Of a number, of an import, or of an ellipsis.
                    _ => Last::Any,
                };
                allowed
            }
            b':' => {
                self.pause();
                let allowed = !matches!(self.last, Last::Operator | Last::Star | Last::Dot);
                (self.operator, self.operator_len) = ([b':', 0, 0], 1);
                self.last = Last::Colon;
                allowed
            }
            _ => self.operator(byte, header),
        }
    }

    fn operator(&mut self, byte: u8, header: bool) -> bool {
        let is_one = |bytes: &[u8]| OPERATORS.iter().any(|operator| operator.starts_with(bytes));
        let mut longer = self.operator;
        if let Some(next) = longer.get_mut(self.operator_len) {
            *next = byte;
        }
        if self.operator_len < longer.len() && is_one(&longer[..=self.operator_len]) {
            self.operator = longer;
            self.operator_len += 1;
        } else {
            // Another operator right behind the last.
            self.before = self.last;
            (self.operator, self.operator_len) = ([byte, 0, 0], 1);
        }
        let operator = &self.operator[..self.operator_len];
        let value = matches!(self.before, Last::Name | Last::Number | Last::Text | Last::Close | Last::Any);
        let allowed = match operator {
            b"+" | b"-" | b"~" => self.before != Last::Dot,
            b"*" | b"**" => !matches!(self.before, Last::Dot | Last::Star),
            b"@" => value || self.before == Last::Start,
            b"->" => value && header,
            // `def f(a, /)` and `a, = b`.
            b"/" | b"=" => value || self.before == Last::Comma,
            _ => value && is_one(operator),
        };
        self.last = match operator {
            // `import *`
            b"*" if self.before == Last::Keyword => Last::Any,
            b"*" | b"**" if !value || self.before == Last::Any => Last::Star,
            b"/" if self.before == Last::Comma => Last::Any,
            _ => Last::Operator,
        };
        allowed
    }

    /// Whether the line may end here.
    pub(super) fn may_end(&self) -> bool {
        !matches!(self.last, Last::Operator | Last::Star | Last::Dot)
    }
}
