//! The same lines and scopes from a tree-sitter parse: exact where the text is whole, and error-tolerant.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tree_sitter::{Node, ParseOptions, Parser};

use super::languages::{Grammar, Language, Layout};
use super::mend::mend;
use super::names::name;
use super::{Kind, Scope, ScopeId, Structure};

/// Structure of a whole text by its grammar; `None` where the language has no grammar or `budget` did not suffice.
///
/// Lines are those of the scanner, with scopes, depths, headers and imports as the parse tree has them; where the parse has an
/// error, such as in a text that is not finished, the scanner's answer stands.
pub fn exact(language: &'static Language, source: &[u8], budget: Duration) -> Option<Structure> {
    let (parsed, errors) = parse(language, source, budget)?;
    if errors.is_empty() {
        return Some(parsed);
    }
    Some(mend(&parsed, &Structure::scan(language, source), &errors))
}

/// [`exact`] as the parse tree alone has it, errors and all: what the scanner is compared with.
pub fn parsed(language: &'static Language, source: &[u8], budget: Duration) -> Option<Structure> {
    parse(language, source, budget).map(|(structure, _)| structure)
}

/// What the parse tree says, and first and last lines of what is no part of the grammar, or missing.
fn parse(
    language: &'static Language,
    source: &[u8],
    budget: Duration,
) -> Option<(Structure, Vec<(usize, usize)>)> {
    let grammar = language.grammar.as_ref()?;
    let mut parser = Parser::new();
    parser.set_language(&(grammar.language)()).ok()?;
    let started = Instant::now();
    let mut out_of_time = |_: &tree_sitter::ParseState| {
        if started.elapsed() > budget { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = ParseOptions::new().progress_callback(&mut out_of_time);
    let tree =
        parser.parse_with_options(&mut |at, _| source.get(at..).unwrap_or(&[]), None, Some(options))?;
    let mut structure = Structure::scan(language, source);
    for line in &mut structure.lines {
        (line.depth, line.scope) = (0, None);
        if line.pinned() {
            line.kind = Kind::Body;
        }
    }
    structure.scopes.clear();
    let mut walk = Walk { grammar, layout: language.layout, source, structure, errors: Vec::new() };
    walk.tree(tree.root_node());
    Some((walk.structure, walk.errors))
}

struct Walk<'a> {
    grammar: &'a Grammar,
    layout: Layout,
    source: &'a [u8],
    structure: Structure,
    /// First and last lines of what is no part of the grammar, or missing.
    errors: Vec<(usize, usize)>,
}

impl Walk<'_> {
    /// Every node before its children, without recursion: trees of hostile texts are deep.
    fn tree(&mut self, root: Node<'_>) {
        let mut cursor = root.walk();
        let mut open: Vec<(usize, ScopeId)> = Vec::new();
        loop {
            let node = cursor.node();
            while open.last().is_some_and(|&(end, _)| end <= node.start_byte()) {
                open.pop();
            }
            if node.is_error() || node.is_missing() {
                self.errors.push((node.start_position().row, last_row(node)));
            }
            if self.grammar.imports.contains(&node.kind()) {
                self.import(node);
            } else if let Some((scope, end)) = self.scope(node, open.last().map(|&(_, id)| id)) {
                open.push((end, scope));
            }
            if cursor.goto_first_child() {
                continue;
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return;
                }
            }
        }
    }

    fn import(&mut self, node: Node<'_>) {
        let last = last_row(node);
        for line in self.lines(node.start_position().row, last) {
            if matches!(line.kind, Kind::Body | Kind::String) {
                line.kind = Kind::Import;
            }
        }
    }

    fn lines(&mut self, first: usize, last: usize) -> impl Iterator<Item = &mut super::Line> {
        self.structure.lines.iter_mut().take(last + 1).skip(first)
    }

    fn scope(&mut self, node: Node<'_>, parent: Option<ScopeId>) -> Option<(ScopeId, usize)> {
        if !self.grammar.scopes.contains(&node.kind()) {
            return None;
        }
        let (body, end) = body(node)?;
        let colon = self.layout == Layout::Colon;
        let opener = if colon { colon_of(node).unwrap_or(body) } else { body };
        let first = self.header_start(node);
        let last = opener.start_position().row;
        for line in self.lines(first, last) {
            if matches!(line.kind, Kind::Body | Kind::String) {
                line.kind = Kind::Header;
            }
        }
        let name = name(node, self.source).unwrap_or_default();
        let end_row = last_row(end);
        let id = ScopeId(self.structure.scopes.len() as u32);
        let header = first as u32..last as u32 + 1;
        self.structure.scopes.push(Scope { name, parent, header, end: Some(end_row as u32 + 1) });
        // A brace is outside the scope it opens and inside the one it closes.
        let inside = body.start_byte() + usize::from(!colon)..end.end_byte();
        let rows = body.start_position().row..=end_row;
        let source = self.source;
        for line in self.lines(*rows.start(), *rows.end()) {
            let blanks =
                source[line.start..].iter().take_while(|byte| byte.is_ascii_whitespace() && **byte != b'\n');
            if inside.contains(&(line.start + blanks.count())) {
                line.depth += 1;
                line.scope = Some(id);
            }
        }
        Some((id, node.end_byte()))
    }

    /// The line a header begins in: that of the first decorator.
    fn header_start(&self, node: Node<'_>) -> usize {
        let mut first = node;
        while let Some(parent) = first.parent()
            && self.grammar.wrappers.contains(&parent.kind())
        {
            first = parent;
        }
        let mut row = first.start_position().row;
        let mut before = first.prev_sibling();
        while let Some(sibling) = before
            && (self.grammar.attributes.contains(&sibling.kind()) || sibling.kind().ends_with("comment"))
        {
            if !sibling.kind().ends_with("comment") {
                row = sibling.start_position().row;
            }
            before = sibling.prev_sibling();
        }
        row
    }
}

/// Where a scope's body opens, and the node it ends with: Go's types keep theirs one level deeper.
fn body(node: Node<'_>) -> Option<(Node<'_>, Node<'_>)> {
    let whole = |body| (body, body);
    match node.kind() {
        "arrow_function" => listed(node, &["statement_block"]).map(whole),
        "struct_item" | "union_item" => listed(node, &["field_declaration_list"]).map(whole),
        "type_spec" => {
            let shape = node.child_by_field_name("type")?;
            match shape.kind() {
                "struct_type" => listed(shape, &["field_declaration_list"]).map(whole),
                "interface_type" => listed(shape, &["{"]).map(|open| (open, shape)),
                _ => None,
            }
        }
        "macro_definition" => listed(node, &["{"]).map(|open| (open, node)),
        _ => node.child_by_field_name("body").map(whole),
    }
}

fn listed<'a>(node: Node<'a>, kinds: &[&str]) -> Option<Node<'a>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).find(|child| kinds.contains(&child.kind()))
}

fn colon_of(node: Node<'_>) -> Option<Node<'_>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).find(|child| child.kind() == ":")
}

/// The row of a node's last byte; nodes that take in their line end stop before it.
fn last_row(node: Node<'_>) -> usize {
    let end = node.end_position();
    if end.column == 0 { end.row.saturating_sub(1).max(node.start_position().row) } else { end.row }
}
