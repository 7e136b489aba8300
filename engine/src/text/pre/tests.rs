use super::*;

fn words(rule: &str, text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    Rule::find(rule).expect("a known rule").split(text, &mut |word| words.push(word.to_vec()));
    words
}

/// Expected words are separated by `|`, which none of the texts has.
#[test]
fn words_of_each_rule() {
    for (rule, expected) in [
        ("gpt-2", "def| f|(|x|):|\n   | return| x|1234|+|5|'s|'|S| don|'t"),
        ("gpt-2", "a| | b|\t|\t|c|  "),
        ("gpt-2", "x|²½| ٣٤|!?| …|\u{3000}|é"),
        ("llama-bpe", "def| f|(x|):\n|   | return| x|123|4|+|5|'s|'S| don|'t"),
        ("llama-bpe", "a|\n\n|  |\tb|  \n|c| | |1"),
        ("llama-bpe", "x| ==| y|;\r\n\r\n|z|'ſ|t|'LL|'ve"),
        ("qwen2", "x|1|2|3|4| |5|.y| | //\n"),
        ("starcoder", "x|1|2| |3| y|²| "),
        ("falcon", "x|=|123|456|7| a|.,!|b| |12|\n| |1"),
        ("deepseek-coder", "a| b|\n| | c|1|2| !|+|\r|\n| |中文|x"),
        ("deepseek-llm", "a| b|\n| c|1|2| !+|  "),
        ("default", "x|=|123|456|7| y"),
    ] {
        let expected: Vec<&str> = expected.split('|').collect();
        let text = expected.concat();
        let words = words(rule, text.as_bytes());
        let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        assert_eq!(words, expected, "{rule}: {text:?}");
    }
}

#[test]
fn falcon_cuts_inside_of_characters() {
    // The second byte of м, D0 BC, is ¼ in Latin-1, a number.
    assert_eq!(words("falcon", "м".as_bytes()), [[0xD0], [0xBC]]);
}

#[test]
fn words_are_the_whole_text() {
    // Every text of up to five units out of these, which have all classes, and stray bytes.
    let units: [&[u8]; 9] = [b"a", b" ", b"\n", b"1", b"'", b"=", "中".as_bytes(), b"\xFF", b"\xE4\xB8"];
    for rule in RULES {
        for n in 0..9_usize.pow(5) {
            let mut n = n;
            let mut text = Vec::new();
            while n > 0 {
                text.extend_from_slice(units[n % 9]);
                n /= 9;
            }
            let words = words(rule.name, &text);
            assert!(words.iter().all(|word| !word.is_empty()), "{}: {text:?}", rule.name);
            assert_eq!(words.concat(), text, "{}", rule.name);
        }
    }
}

#[test]
fn names_are_unique_and_listed() {
    for (i, rule) in RULES.iter().enumerate() {
        assert!(RULES[..i].iter().all(|other| other.name != rule.name), "{}", rule.name);
        assert!(Rule::names().contains(rule.name));
    }
    assert!(Rule::find("qwen").is_none());
}
