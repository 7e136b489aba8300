//! Small sources, line by line. Real files are compared with tree-sitter in `tests/tests/structure.rs`.

use super::*;

/// Every line as `kind depth scope`, one letter for the kind: **i**mport, **h**eader, **b**ody, **c**omment, **s**tring, `-`.
fn shown(language: &str, source: &str) -> Vec<String> {
    let language = Language::named(language).unwrap();
    let structure = Structure::scan(language, source.as_bytes());
    let line = |line: &Line| {
        let kind = if line.kind == Kind::Blank { "-" } else { &line.kind.name()[..1] };
        format!("{kind}{} {}", line.depth, structure.path(line.scope)).trim_end().to_owned()
    };
    structure.lines.iter().map(line).collect()
}

#[test]
fn python() {
    let source = "import os\nfrom a import (\n    b,\n)\n\n@cached\nclass A(B):\n    \"\"\"Doc:\n    (text)\n    \"\"\"\n    \
                  def f(\n        self,\n    ) -> int:\n        if x: # why\n            return 1\n# end\nprint(A)\n";
    let expected = [
        "i0", "i0", "i0", "i0", "-0", "h0", "h0", "s1 A", "s1 A", "s1 A", "h1 A", "h1 A", "h1 A", "b2 A.f",
        "b2 A.f", "c2 A.f", "b0",
    ];
    assert_eq!(shown("python", source), expected);
}

#[test]
fn rust() {
    let source = "use a::{\n    b,\n};\n#[derive(Debug)]\nstruct S<'a> {\n    x: &'a str,\n}\nimpl<'a> Trait for S<'a>\nwhere\n    \
                  T: X,\n{\n    fn f(&self) -> char {\n        let s = r#\"fn x() {\"#;\n        vec! { fn g() {} };\n        '{'\n    }\n}\n";
    let expected = [
        "i0", "i0", "i0", "h0", "h0", "b1 S", "b1 S", "h0", "h0", "h0", "h0", "h1 S", "b2 S.f", "b2 S.f",
        "s2 S.f", "b2 S.f", "b1 S",
    ];
    assert_eq!(shown("rust", source), expected);
}

#[test]
fn javascript() {
    let source = "import {\n  a\n} from 'a'\nexport class K extends L {\n  get x() { return /[/{]/.test(y) }\n  static of(z) {\n    \
                  return `${z.map((q) => {\n      return q / 2\n    })} {`\n  }\n}\nconst f = async () => {\n}\nf()\n";
    let expected = [
        "i0",
        "i0",
        "i0",
        "h0",
        "h1 K",
        "h1 K",
        "h2 K.of",
        "b3 K.of.<anonymous>",
        "b3 K.of.<anonymous>",
        "b2 K.of",
        "b1 K",
        "h0",
        "b1 f",
        "b0",
    ];
    assert_eq!(shown("javascript", source), expected);
}

#[test]
fn c_and_cpp() {
    let source = "#include <a.h>\n#define M(x) {\nstatic const struct s t[] = {\n    { 1 },\n};\nint\nf(void)\n{\n#ifdef X\n    if (a) {\n#else\n    \
                  if (b) {\n#endif\n    }\n    return '\\'';\n}\n";
    let expected = [
        "i0", "b0", "b0", "b0", "b0", "h0", "h0", "h0", "b1 f", "b1 f", "b1 f", "b1 f", "b1 f", "b1 f",
        "b1 f", "b1 f",
    ];
    assert_eq!(shown("c", source), expected);
    let source = "namespace n {\ntemplate <class T, int N = 1'000>\nclass A : public B<T> {\n public:\n  A() : x_{1}, y_(R\"q(\n})q\") {\n  }\n};\n}\n";
    let expected = ["h0", "h1 n", "h1 n", "b2 n.A", "h2 n.A", "h2 n.A", "b3 n.A.A", "b2 n.A", "b1 n"];
    assert_eq!(shown("cpp", source), expected);
}

#[test]
fn go_and_java() {
    let source = "package p\n\nimport (\n\t\"fmt\"\n)\n\ntype (\n\tT struct {\n\t\tx int\n\t}\n)\n\nfunc (t *T) F(g func(int) int) interface{} {\n\t\
                  go func() {\n\t}()\n\treturn map[string]struct{}{\n\t}\n}\n";
    let expected = [
        "i0",
        "-0",
        "i0",
        "i0",
        "i0",
        "-0",
        "b0",
        "h0",
        "b1 T",
        "b1 T",
        "b0",
        "-0",
        "h0",
        "h1 F",
        "b2 F.<anonymous>",
        "b1 F",
        "b1 F",
        "b1 F",
    ];
    assert_eq!(shown("go", source), expected);
    let source = "package p;\nimport q;\n@Note({1, 2})\npublic enum E {\n  A(1) {\n    void f() {\n    }\n  };\n  E(int x) {\n    \
                  new Thread(new R() {\n      public void run() {\n      }\n    });\n  }\n}\n";
    let expected = [
        "i0",
        "i0",
        "h0",
        "h0",
        "b1 E",
        "h1 E",
        "b2 E.f",
        "b1 E",
        "h1 E",
        "b2 E.E",
        "h2 E.E",
        "b3 E.E.run",
        "b2 E.E",
        "b2 E.E",
        "b1 E",
    ];
    assert_eq!(shown("java", source), expected);
}

#[test]
fn plain_text_goes_by_indentation() {
    let source = "server:\n  host: a\n  ports: [\n80\n  ]\nclient:\n  x\n";
    assert_eq!(
        shown("plain", source),
        ["h0", "b1 server", "b1 server", "b1 server", "b1 server", "h0", "b1 client"]
    );
}

/// Kotlin.
const BRACES: &str = "package a.b\nimport c.*\n\nclass Main(\n    val x: Int,\n) : Base() {\n    override fun run(b: Bundle?): Int {\n        \
                      if (b != null) {\n            foo.map {\n                it + 1 // }\n            }\n        }\n        return 1\n    }\n}\n";

#[test]
fn unknown_languages_go_by_braces_or_indentation() {
    let run = "b2 Main.run";
    let body = [run, run, run, run, run, run, "b1 Main"];
    let head = ["i0", "i0", "-0", "h0", "h0", "h0", "h1 Main", run];
    assert_eq!(shown("unknown", BRACES), [head.as_slice(), &body].concat());
    // C#.
    let source = "using System;\n\nnamespace A.B\n{\n    public class C : D\n    {\n        public C(int x)\n        {\n            \
                  foreach (var i in x)\n            {\n            }\n        }\n    }\n}\n";
    let body = ["b3 A.C.C"; 4];
    let expected = ["i0", "-0", "h0", "h0", "h1 A", "h1 A", "h2 A.C", "h2 A.C"];
    assert_eq!(shown("unknown", source), [expected.as_slice(), &body, &["b2 A.C", "b1 A"]].concat());
    // Ruby.
    let source = "module A\n  class B < C\n    def run(x)\n      x\n    end\n  end\nend\n";
    let expected = ["h0", "h1 A", "h2 A.B", "b3 A.B.run", "b2 A.B", "b1 A", "b0"];
    assert_eq!(shown("plain", source), expected);
    let of = |name: &str, text| Language::of_file(std::path::Path::new(name), text).name;
    assert_eq!(
        [of("a.kt", BRACES), of("a.rb", source), of("a", "fn main() {\n")],
        ["unknown", "plain", "rust"]
    );
}

/// The parser makes nothing of the docstring, the scanner does; what comes before stays as parsed.
#[test]
fn what_is_not_finished_is_read_by_the_scanner() {
    let python = Language::named("python").unwrap();
    let source = "import os\n\ndef f(a):\n    return a\n\ndef g(a):\n    \"\"\"Doc.\n\n    Not finished (\n";
    let parsed = exact(python, source.as_bytes(), std::time::Duration::from_secs(20)).unwrap();
    let scanned = Structure::scan(python, source.as_bytes());
    let places = |structure: &Structure| {
        let place = |line: &Line| (line.kind, line.depth, structure.path(line.scope));
        structure.lines.iter().filter(|line| line.kind != Kind::Blank).map(place).collect::<Vec<_>>()
    };
    assert_eq!(places(&parsed), places(&scanned));
    assert_eq!(parsed.path(parsed.lines.last().unwrap().scope), "g");
    assert_eq!(parsed.scopes.len(), 2);
}

/// Names of scopes as the parse tree has them.
#[test]
fn scopes_are_called_what_they_are_declared_or_assigned_as() {
    let cases: [(&str, &str, &[&str]); 4] = [
        (
            "cpp",
            "int **f(void) {\n}\nT& g(int x) {\n}\nV<int>& A::h(int x) const {\n}\nA::~A() {\n}\nint (*k(int a))(int) {\n}\n\
             A::operator bool() const {\n}\nint A::operator()(int x) {\n}\ntypedef struct {\n  int x;\n} P;\ntemplate <class T> struct W<T*> {\n};\n",
            &["f", "g", "A::h", "A::~A", "k", "A::operator bool", "A::operator()", "P", "W<T*>"],
        ),
        (
            "javascript",
            "const add = (a) => {\n}\na.b = function () {\n}\nf(() => {\n})\nx = {\n  'go': function () {\n  },\n  \"a b\"() {\n  }\n}\n\
             class K {\n  #on = () => {\n  }\n}\nmap[i] = () => {\n}\n",
            &["add", "b", "", "go", "a b", "K", "#on", ""],
        ),
        (
            "go",
            "package p\nfunc F() {\n\tf := func() {\n\t}\n\tgo func() {\n\t}()\n}\nvar h = func() {\n}\n",
            &["F", "f", "", "h"],
        ),
        ("rust", "impl<T> A for B<T> {\n}\n", &["B<T>"]),
    ];
    for (language, source, expected) in cases {
        let language = Language::named(language).unwrap();
        let parsed = exact(language, source.as_bytes(), std::time::Duration::from_secs(20)).unwrap();
        let names: Vec<&str> = parsed.scopes.iter().map(|scope| scope.name.as_str()).collect();
        assert_eq!(names, expected, "{}", language.name);
    }
}

#[test]
fn code_between_fences_is_read_as_its_language() {
    let source = "Look:\n```python\nimport a\ndef f(x):\n    return '```'\n```\nWell.\n```rust\nfn g() {\n    1\n}\n```\n```\nimport b\n";
    let expected = ["b0", "b0", "i0", "h0", "b1 f", "b0", "b0", "b0", "h0", "b1 g", "b1 g", "b0", "b0", "b0"];
    assert_eq!(shown("markdown", source), expected);
    // A literal that is open does not outlast its fence.
    let source = "```py\nx = \"\"\"\n```\n```py\nimport a\n";
    assert_eq!(shown("markdown", source), ["b0", "b0", "s0", "b0", "i0"]);
}

#[test]
fn languages_are_known_by_name_and_extension() {
    use std::path::Path;
    for (path, name) in
        [("a/b.py", "python"), ("x.rs", "rust"), ("y.tsx", "typescript"), ("z.H", "c"), ("none", "plain")]
    {
        assert_eq!(Language::of_path(Path::new(path)).name, name);
    }
    assert!(Language::named("cobol").is_none());
    // No extension is claimed twice.
    let mut all: Vec<&str> = LANGUAGES.iter().flat_map(|language| language.extensions).copied().collect();
    let n = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), n);
}
