//! What a bracket opens and what it closes.

use super::Braces;
use crate::code::languages::{BareFunctions, Word};
use crate::code::scanner::Outline;
use crate::code::statement::{Frame, Head, Last, NO_HEAD, Role};

/// Open brackets at most; deeper ones are only counted.
const MAX_FRAMES: usize = 512;

impl Braces {
    pub(super) fn push(&mut self, role: Role, import: bool) {
        if self.frames.len() >= MAX_FRAMES {
            self.beyond += 1;
            return;
        }
        let parent = *self.frame();
        let role = if parent.role == Role::Opaque { Role::Opaque } else { role };
        self.frames.push(Frame {
            role,
            scope: false,
            in_function: parent.in_function || role == Role::Function,
            import: parent.import || import,
            types: false,
            head: NO_HEAD,
        });
    }

    /// What a brace opens, and whether that is a scope.
    fn opens(&self, outline: &Outline) -> (Role, bool) {
        let language = self.language;
        let Some(frame) = self.frames.last() else { return (Role::Block, false) };
        let head = &frame.head;
        if frame.role == Role::Opaque || (language.macro_calls && self.opens_macro(head)) {
            return (Role::Opaque, head.meaning == Some(Word::Macro) && frame.role != Role::Opaque);
        }
        if language.arrows && self.last == Last::Arrow {
            return (Role::Function, true);
        }
        let value = match self.last {
            Last::Byte(byte) => matches!(byte, b'=' | b'(' | b',' | b'[' | b'?' | b'&' | b'|' | b'<' | b'+'),
            // A value begins, unless it is a type such as `void`.
            Last::Word(Word::Operator) => !(head.group && head.colon),
            _ => false,
        };
        // A Rust `where` clause may end in a comma.
        let value = value && !language.macro_calls;
        let after_colon = self.last == Last::Byte(b':');
        match head.meaning {
            Some(Word::Import) => return (Role::Literal, false),
            Some(Word::Function) if !value && !(language.arrows && after_colon) => {
                let shape = matches!(self.last, Last::Word(Word::Shape));
                return if shape { (Role::Literal, false) } else { (Role::Function, true) };
            }
            Some(Word::Class | Word::Contextual) if !value => {
                let bare = language.bare_functions == BareFunctions::OutsideFunctions;
                let function = bare && head.group && !frame.in_function;
                if function && !head.assigned {
                    return (Role::Function, true);
                }
                if !(bare && (head.assigned || (head.group && frame.in_function))) {
                    let java_enum = head.constants && language.bare_functions == BareFunctions::Classes;
                    let namespaces = bare && outline.depth() < usize::MAX && !head.constants;
                    let role = match () {
                        () if java_enum => Role::Constants,
                        () if namespaces || !bare => Role::Class,
                        () => Role::Literal,
                    };
                    return (role, true);
                }
            }
            _ => {}
        }
        let bare = match language.bare_functions {
            BareFunctions::Nowhere => false,
            BareFunctions::Classes => frame.role == Role::Class,
            BareFunctions::ClassesAndLiterals => matches!(frame.role, Role::Class | Role::Literal),
            BareFunctions::OutsideFunctions => {
                !frame.in_function && matches!(frame.role, Role::Items | Role::Class)
            }
        };
        // In a list of initializers, `{` after a name initializes that member.
        let initializer = head.colon && language.lexis.preprocessor && self.last == Last::Name;
        let plain = !head.assigned && !value && !initializer && !(language.arrows && after_colon);
        if bare && head.group && plain && !head.new && head.meaning != Some(Word::Control) {
            return (Role::Function, true);
        }
        if (head.new && head.group) || frame.role == Role::Constants {
            return (Role::Class, false);
        }
        let case = head.meaning == Some(Word::Control);
        let literal = value || (after_colon && !case) || head.assigned || initializer;
        // `extern "C" {` holds items.
        if self.last == Last::Text && frame.role == Role::Items {
            return (Role::Items, false);
        }
        (if literal { Role::Literal } else { Role::Block }, false)
    }

    fn opens_macro(&self, head: &Head) -> bool {
        head.meaning == Some(Word::Macro) || self.last == Last::Byte(b'!')
    }

    pub(super) fn open_brace(&mut self, outline: &mut Outline) {
        let (role, scope) = self.opens(outline);
        let head = self.frame().head;
        let import = head.meaning == Some(Word::Import);
        let before = self.frames.len();
        self.push(role, import);
        if self.frames.len() == before {
            return;
        }
        self.frame().scope = scope;
        if role == Role::Class && !scope {
            self.frame().in_function = false;
        }
        if scope {
            if matches!(role, Role::Class | Role::Constants) {
                self.frame().in_function = false;
            }
            let name = if head.meaning.is_some_and(|word| word != Word::Control) && !head.name.is_empty() {
                head.name
            } else {
                head.called
            };
            outline.open(&name, head.line);
        } else if role == Role::Block {
            outline.step();
        }
    }

    pub(super) fn close_brace(&mut self, outline: &mut Outline) -> bool {
        if self.beyond > 0 {
            self.beyond -= 1;
            return false;
        }
        // Parentheses that were never closed end with the block around them.
        while self.frames.len() > 1 && self.role() == Role::Group {
            self.frames.pop();
        }
        if self.frames.len() == 1 {
            return false;
        }
        let Some(frame) = self.frames.pop() else { return false };
        if frame.scope {
            outline.close();
        }
        if frame.role == Role::Splice {
            return true;
        }
        let parent = self.frame();
        match frame.role {
            Role::Literal if !frame.scope => {}
            _ if frame.import => {}
            _ => {
                parent.head = NO_HEAD;
                if parent.types {
                    parent.head.meaning = Some(Word::Type);
                }
            }
        }
        false
    }
}
