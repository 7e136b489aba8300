//! What the syntax of each language allows.

use super::Syntax;
use crate::code::Language;

/// The first byte at which a text goes wrong, read byte by byte.
fn fault(language: &str, text: &str) -> Option<usize> {
    let mut syntax = Syntax::new(Language::named(language).unwrap()).unwrap();
    text.bytes().position(|byte| {
        let allowed = syntax.allows(&[byte], false);
        syntax.read(&[byte]);
        !allowed
    })
}

#[test]
fn right_programs_are_allowed() {
    for (language, text) in [
        (
            "python",
            "def f(x,\n  y):\n    '''a\nb ( '''\n    if x: return [1,\n  2]\n    else:\n\n        # why\n        y = \"(\"\n\nf(1)\n",
        ),
        ("python", "try:\n    a\nexcept E:\n    b\nelse:\n    c\nfinally:\n    d\nx = 1 if y else \\\n  2\n"),
        (
            "python",
            "async def f():\n    async with a as b:\n        await b\n    return {1: 2, 'a': [3]}\n@d\nclass A: pass\n",
        ),
        (
            "python",
            "def f(a: int = -1, /, *, b=(yield), **k) -> x[..., ::2]: return not a is not b\nfrom . import (a,\n  b as c)\nfrom .a import *\n",
        ),
        (
            "python",
            "a, = b = lambda *x, y=1: x @ -y ** ~2 if (n := 1.) != .5 else rb'a' f\"b\" r'c'\nmatch x:\n    case [1, *_] | {}: print(*a, **{'b': 1}); pass\n",
        ),
        (
            "python",
            "x = [i async for i in y if not i in z]\nmatch = type.print(1_000, 0x1f, ...)\ntype A[T] = int\n@a.b(c)\nclass A(B): ...\n",
        ),
        (
            "python",
            "def f(x):\n    return\"a\" if\"b\"in x else'c'\nz = 1if x else[0for _ in y]\nx = 1,; type A = int\nasync \\\n  def g(): pass\n",
        ),
        (
            "python",
            "x = f\"{d[\"a\"]:{w}}\" + F'{{' + rf\"\"\"{\n \", \".join(y)}\"\"\"\nprint(f'{x!r}}}', rf'\\{{', f\"\\N{DASH}\")\n",
        ),
        ("python", "\u{feff}try:\n    a\nexcept E: b\ns = 'a\\\r\n  b'\r\n"),
        ("python", "        return 1\n    elif x:\n        y\n    b,\n)\n"),
        ("c", "extern \"C\" {\n#define OPEN {\nint x = 0xDE'AD'BEEF;\n}\n"),
        ("javascript", "const a = i++ / 2; return <p>Don't</p>;\n"),
        ("python", "    deeper = 1\nfurther_out = 2\nfor i in x:\n\tpass\nelse:\n\tpass\n"),
        ("rust", "fn f<'a>(x: &'a str) -> char { match x { _ => '(' } } // )\n}\n"),
        ("javascript", "const f = (x) => `a ${x + `{${y}`} (`; a = b / c; d = /[(]/.test(e)\n"),
        ("c", "#define A {\nint f(void) { return '{'; } /* ) */\n"),
        ("go", "var s = `a\n(` + \"b\"\n"),
    ] {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        assert_eq!(fault(language, text), None, "{text:?}");
        let after = Syntax::after(Language::named(language).unwrap(), text.as_bytes());
        assert!(after.unwrap().may_end(), "{text:?}");
    }
}

#[test]
fn wrong_ones_are_not() {
    for (language, text, at) in [
        ("python", "f(]", "]"),
        ("python", "f)", ")"),
        ("python", "x = 'a\n", "\n"),
        ("python", "if x:\ny", "y"),
        ("python", "if x:\n\n  # no block\ny", "y"),
        ("python", "x\n  y", "y"),
        ("python", "if x:\n    y\n  z", "z"),
        ("python", "if x\n", "\n"),
        ("python", "while f(a[1:]) \n", "\n"),
        ("python", "try:\n  a\nb ", "b"),
        ("python", "if a:\n  try:\n    a\nb", "b"),
        ("python", "x\nelse:", ":"),
        ("python", "if x: y\nexcept ", " "),
        ("python", "a b", "b"),
        ("python", "a.b.0", "0"),
        ("python", "f(a, b>, c)", ", c"),
        ("python", "f(a, b=\n)", ")"),
        ("python", "x = = 1", "= 1"),
        ("python", "/// a", "/// a"),
        ("python", "f() -> int", "> "),
        ("python", "return f():\n", "\n"),
        ("python", "x = 'a' c", "c"),
        ("python", "x = {a} {", "{"),
        ("python", "x +\n", "\n"),
        ("rust", "fn f() { (} ", "}"),
        ("rust", "fn f() { ) ", ")"),
        ("javascript", "`${(}`", "}"),
        ("go", "\"a\n", "\n"),
    ] {
        assert_eq!(fault(language, text), text.rfind(at), "{text:?}");
    }
}

#[test]
fn whole_tokens_are_judged_at_once() {
    let mut syntax = Syntax::new(Language::named("python").unwrap()).unwrap();
    syntax.read(b"if x:\n    y");
    for (bytes, allowed) in [
        ("\n    ", true),
        ("\n  ", false),
        ("\n        ", false),
        ("\n\n    ", true),
        ("\n", true),
        ("\nelse", true),
    ] {
        assert_eq!(syntax.allows(bytes.as_bytes(), true), allowed, "{bytes:?}");
        assert!(syntax.allows(bytes.as_bytes(), false), "{bytes:?} may go on");
    }
    assert!(!syntax.allows(b"\nexcept", true));
    assert!(syntax.allows(b"\nexcept", false), "exceptional = 1");
}

#[test]
fn texts_end_where_nothing_is_open() {
    for (text, may) in [
        ("x = 1", true),
        ("f(", false),
        ("'''a", false),
        ("if x:\n", false),
        ("if x:\n    y", true),
        ("if x", false),
        ("try:\n  x\n", false),
        ("if x:\n  try:\n    y\n", false),
    ] {
        let mut syntax = Syntax::new(Language::named("python").unwrap()).unwrap();
        syntax.read(text.as_bytes());
        assert_eq!(syntax.may_end(), may, "{text:?}");
    }
}
