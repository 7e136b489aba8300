//! What scopes of a parse tree are called.

use tree_sitter::Node;

use super::lexer::is_word;

/// Where a function or class without a name of its own finds one: kinds of nodes around it, and the field that has the name.
const GIVEN: &[(&str, &str)] = &[
    ("variable_declarator", "name"),
    ("pair", "key"),
    ("assignment_expression", "left"),
    ("field_definition", "property"),
    ("public_field_definition", "name"),
    ("short_var_declaration", "left"),
    ("assignment_statement", "left"),
    ("var_spec", "name"),
    ("type_definition", "declarator"),
];

/// The name of a scope: its own, that of its declarator, or that of what it is assigned to.
pub(super) fn name(node: Node<'_>, source: &[u8]) -> Option<String> {
    let text = |node: Node<'_>| node.utf8_text(source).ok();
    if let Some(declarator) = node.child_by_field_name("declarator") {
        return declared(declarator, source).map(str::to_owned);
    }
    // A Rust `impl` goes by its type.
    let own = node.child_by_field_name("name").or_else(|| node.child_by_field_name("type"));
    own.and_then(text).map(unquoted).or_else(|| given(node, source)).map(str::to_owned)
}

/// What a C declarator declares: `f` of `**f(int)`, `(*f(int))(int)` or `&f()`.
fn declared<'a>(mut node: Node<'_>, source: &'a [u8]) -> Option<&'a str> {
    while node.kind().ends_with("_declarator") {
        let mut cursor = node.walk();
        let mut inner = node.named_children(&mut cursor);
        let of_reference = inner.find(|child| !child.kind().ends_with("modifier"));
        node = node.child_by_field_name("declarator").or(of_reference)?;
    }
    let text = node.utf8_text(source).ok()?;
    // `operator bool() const` is read as a name, and `operator()` is one.
    match text.split_once('(') {
        Some((name, _)) if !name.ends_with("operator") => Some(name.trim_end()),
        _ => Some(text),
    }
}

/// `bar` of `foo.bar = function () {`, of `"bar": function () {` or of `const bar = () => {`.
fn given<'a>(node: Node<'_>, source: &'a [u8]) -> Option<&'a str> {
    let mut value = node.parent()?;
    // Go's assignments are of lists.
    if value.kind() == "expression_list" && value.named_child_count() == 1 {
        value = value.parent()?;
    }
    let &(_, field) = GIVEN.iter().find(|(kind, _)| *kind == value.kind())?;
    let text = value.child_by_field_name(field)?.utf8_text(source).ok()?;
    let last = unquoted(text).rsplit('.').next()?;
    (!last.is_empty() && last.bytes().all(|byte| is_word(byte) || byte == b'#')).then_some(last)
}

/// JavaScript's properties may be literals.
fn unquoted(name: &str) -> &str {
    name.trim_matches(['"', '\''])
}
