//! Preprocessor lines.

use super::Braces;
use crate::code::lexer::is_word;
use crate::code::scanner::{Name, Outline};
use crate::code::statement::Frame;

/// Open `#if`s at most whose brackets are remembered.
const MAX_CONDITIONS: usize = 64;

/// A preprocessor line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directive {
    pub(super) name: Name,
    pub(super) named: bool,
    pub(super) joined: bool,
}

impl Braces {
    /// Preprocessor lines are no part of statements; brackets in the branches of an `#if` count once.
    pub(super) fn directive_byte(&mut self, byte: u8, outline: &mut Outline) {
        let Some(directive) = &mut self.directive else { return };
        if byte == b'\n' {
            if directive.joined {
                directive.joined = false;
                return;
            }
            let name = directive.name;
            self.directive = None;
            self.new_line = true;
            match name.as_bytes() {
                b"include" | b"import" => outline.import(),
                b"if" | b"ifdef" | b"ifndef" => {
                    if self.conditions.len() < MAX_CONDITIONS {
                        self.conditions.push(self.frames.clone());
                    } else {
                        self.conditions_beyond += 1;
                    }
                }
                b"else" | b"elif" | b"elifdef" | b"elifndef" => self.restore(outline),
                b"endif" if self.conditions_beyond > 0 => self.conditions_beyond -= 1,
                b"endif" => {
                    self.conditions.pop();
                }
                _ => {}
            }
            return;
        }
        outline.begin_code();
        if is_word(byte) && !directive.named {
            directive.name.push(byte);
        } else if !directive.name.is_empty() {
            directive.named = true;
        }
        directive.joined = byte == b'\\' || (directive.joined && byte == b'\r');
    }

    /// The next branch begins where the first one did.
    fn restore(&mut self, outline: &mut Outline) {
        if self.conditions_beyond > 0 {
            return;
        }
        let Some(saved) = self.conditions.last() else { return };
        let common = self.frames.iter().zip(saved).take_while(|(a, b)| a.role == b.role).count();
        for frame in self.frames.drain(common..).rev() {
            if frame.scope {
                outline.close();
            }
        }
        // What the first branch closed stays closed for scopes, whose positions never go back.
        for frame in &saved[common..] {
            self.frames.push(Frame { scope: false, ..*frame });
        }
        if let (Some(frame), Some(saved)) = (self.frames.last_mut(), saved.last()) {
            frame.head = saved.head;
        }
    }
}
