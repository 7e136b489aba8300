//! `{% generation %} .. {% endgeneration %}`.
//!
//! Training code uses these marks to find the assistant's words; a renderer prints their body. The template
//! engine has no such tag, so the tags are renamed to `with` and `endwith`, which print their body in a scope of
//! its own just the same. Line numbers do not change.

const OPENERS: [(&str, &str); 3] = [("{%", "%}"), ("{{", "}}"), ("{#", "#}")];

/// `source` with every generation tag renamed.
pub(super) fn rewrite(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut raw = false;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some((_, closer)) = OPENERS.iter().find(|(opener, _)| rest.starts_with(opener)) else {
            out.push('{');
            rest = &rest[1..];
            continue;
        };
        let end = if *closer == "#}" { rest.find(closer) } else { end_of_code(rest, closer) };
        let Some(end) = end else { break };
        let (tag, after) = rest.split_at(end + closer.len());
        let name = if *closer == "%}" { block_name(tag) } else { "" };
        // Between raw and endraw nothing is a tag; a brace there is text.
        if raw && name != "endraw" {
            out.push('{');
            rest = &rest[1..];
            continue;
        }
        raw = name == "raw";
        match name {
            "generation" => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The first word of a `{% .. %}` tag.
fn block_name(tag: &str) -> &str {
    let inner = tag[2..].trim_start_matches(['-', '+']).trim_start();
    inner.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}

/// Where `closer` begins in `code`, outside string literals.
fn end_of_code(code: &str, closer: &str) -> Option<usize> {
    let bytes = code.as_bytes();
    let mut quote = None;
    let mut i = 2;
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(_), b'\\') => i += 1,
            (Some(q), b) if b == q => quote = None,
            (None, b @ (b'"' | b'\'')) => quote = Some(b),
            (None, _) if bytes[i..].starts_with(closer.as_bytes()) => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}
