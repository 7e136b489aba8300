//! Finds tokens that are matched as a whole, before any other rule.

/// A trie over the text of such tokens. Nodes are in one list; node 0 is the root.
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Child of the root for each first byte, 0 for none: most bytes of a text start no token.
    first: [u32; 256],
}

struct Node {
    byte: u8,
    /// Token that ends here.
    token: Option<u32>,
    /// First child and next sibling, 0 for none.
    child: u32,
    sibling: u32,
}

impl Trie {
    /// A trie of `(text, id)`. Empty texts are left out; of equal texts, the first wins.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (&'a [u8], u32)>) -> Trie {
        let mut trie = Trie { nodes: Vec::new(), first: [0; 256] };
        trie.add(0);
        for (text, id) in tokens.filter(|(text, _)| !text.is_empty()) {
            let mut node = 0;
            for &byte in text {
                node = match trie.child(node, byte) {
                    0 => trie.add_child(node, byte),
                    child => child,
                };
            }
            trie.nodes[node as usize].token.get_or_insert(id);
        }
        trie
    }

    fn add(&mut self, byte: u8) -> u32 {
        self.nodes.push(Node { byte, token: None, child: 0, sibling: 0 });
        self.nodes.len() as u32 - 1
    }

    fn add_child(&mut self, parent: u32, byte: u8) -> u32 {
        let child = self.add(byte);
        self.nodes[child as usize].sibling = std::mem::replace(&mut self.nodes[parent as usize].child, child);
        if parent == 0 {
            self.first[usize::from(byte)] = child;
        }
        child
    }

    fn child(&self, node: u32, byte: u8) -> u32 {
        if node == 0 {
            return self.first[usize::from(byte)];
        }
        let mut child = self.nodes[node as usize].child;
        while child != 0 && self.nodes[child as usize].byte != byte {
            child = self.nodes[child as usize].sibling;
        }
        child
    }

    /// The first token in `text` at or after `from`, the longest of those that start there: `(start, end, id)`.
    pub(super) fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize, u32)> {
        let mut at = from;
        loop {
            at += text.get(at..)?.iter().position(|&byte| self.first[usize::from(byte)] != 0)?;
            let (mut node, mut found) = (0, None);
            for (end, &byte) in (at + 1..).zip(&text[at..]) {
                node = self.child(node, byte);
                if node == 0 {
                    break;
                }
                found = self.nodes[node as usize].token.map(|id| (at, end, id)).or(found);
            }
            if found.is_some() {
                return found;
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_leftmost_and_longest() {
        let tokens = ["<a>", "<ab>", "<a>b", "", "bc", "<a>"];
        let trie = Trie::new(tokens.iter().map(|text| text.as_bytes()).zip(0..));
        for (text, from, expected) in [
            ("x<a>", 0, Some((1, 4, 0))),
            ("<<ab>", 0, Some((1, 5, 1))),
            ("<a>bc", 0, Some((0, 4, 2))),
            ("<a>bc", 1, Some((3, 5, 4))),
            ("<a", 0, None),
            ("", 0, None),
            ("bc", 2, None),
            ("bc", 3, None),
        ] {
            assert_eq!(trie.find(text.as_bytes(), from), expected, "{text:?} from {from}");
        }
    }
}
