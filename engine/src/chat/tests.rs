//! The environment of templates, and what a hostile one can do. Whole real templates are compared with jinja2 in
//! `tests/tests/chat_templates.rs`.

use serde_json::{Value, json};

use super::*;

/// 2024-07-06 14:05:09 UTC, a Saturday.
const NOW: i64 = 1_720_274_709;

fn render_with(source: &str, extra: Value) -> Result<String, ChatError> {
    let messages = [Message::new("user", "hi")];
    ChatTemplate::with_clock(source, "<s>", "</s>", || NOW)?.render(&messages, true, &extra)
}

fn render(source: &str) -> Result<String, ChatError> {
    render_with(source, Value::Null)
}

fn text(source: &str) -> String {
    render(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

#[test]
fn variables() {
    assert_eq!(
        text("{{ bos_token ~ messages[0].content ~ eos_token ~ add_generation_prompt }}"),
        "<s>hi</s>True"
    );
    assert_eq!(text("{{ tools is none }} {{ documents is none }} {{ other is defined }}"), "True True False");
    let extra = json!({"tools": [{"b": 1, "a": 2}], "enable_thinking": false});
    assert_eq!(
        render_with("{{ tools|tojson }} {{ enable_thinking }}", extra),
        Ok(r#"[{"b": 1, "a": 2}] False"#.into())
    );
    assert_eq!(render_with("", json!([])), Err(ChatError::NotVariables));
    assert_eq!(render_with("", json!({"messages": 1})), Err(ChatError::Reserved { name: "messages".into() }));
}

#[test]
fn messages_keep_their_fields_in_order() {
    let message: Message =
        serde_json::from_value(json!({"role": "tool", "name": "f", "content": null})).expect("a message");
    assert_eq!(
        message,
        Message { role: "tool".into(), fields: Map::new() }.with("name", "f").with("content", Value::Null)
    );
    let template = ChatTemplate::new("{{ messages|tojson }}", "", "").expect("compiles");
    let rendered = template.render(&[message], false, &Value::Null);
    assert_eq!(rendered, Ok(r#"[{"role": "tool", "name": "f", "content": null}]"#.into()));
}

/// The expected texts are what Python 3's `json.dumps(value, ensure_ascii=False, ..)` prints.
#[test]
fn tojson_is_pythons() {
    let dumps = |value: Value, arguments: &str| {
        render_with(&format!("{{{{ x|tojson{arguments} }}}}"), json!({ "x": value })).expect("renders")
    };
    assert_eq!(
        dumps(json!({"a": [1, 2.0, null, true], "b": {}, "c": []}), ""),
        r#"{"a": [1, 2.0, null, true], "b": {}, "c": []}"#
    );
    assert_eq!(
        dumps(json!("é\u{1}\"\\\n\t\u{8}\u{c}\r<&'>\u{7f}\u{2028}"), ""),
        "\"é\\u0001\\\"\\\\\\n\\t\\b\\f\\r<&'>\u{7f}\u{2028}\""
    );
    assert_eq!(dumps(json!("é🦀\u{7f}"), "(ensure_ascii=true)"), r#""\u00e9\ud83e\udd80\u007f""#);
    assert_eq!(
        dumps(json!({"a": [1, {}], "b": 2}), "(indent=2)"),
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": 2\n}"
    );
    assert_eq!(dumps(json!([1]), "(indent=0)"), "[\n1\n]");
    assert_eq!(dumps(json!([1, {"a": 2}]), "(separators=(',', ':'))"), r#"[1,{"a":2}]"#);
    assert_eq!(dumps(json!({"b": 1, "a": 2}), "(sort_keys=true)"), r#"{"a": 2, "b": 1}"#);
    for (number, python) in [
        (json!(0.1), "0.1"),
        (json!(1e16), "1e+16"),
        (json!(9999999999999998.0), "9999999999999998.0"),
        (json!(1e-5), "1e-05"),
        (json!(0.0001), "0.0001"),
        (json!(-1.5e300), "-1.5e+300"),
        (json!(1e-7), "1e-07"),
        (json!(-0.0), "-0.0"),
        (json!(18446744073709551615u64), "18446744073709551615"),
    ] {
        assert_eq!(dumps(number.clone(), ""), python);
        assert_eq!(
            render_with("{{ x }} {{ x|string }}", json!({ "x": number })),
            Ok(format!("{python} {python}"))
        );
    }
    assert!(matches!(render("{{ nothing|tojson }}"), Err(ChatError::Failed { line: 1, .. })));
}

#[test]
fn the_template_may_refuse() {
    let error =
        render("{% macro m() %}{{ raise_exception('no ' ~ messages[0].role) }}{% endmacro %}\n{{ m() }}");
    assert_eq!(error, Err(ChatError::Refused { message: "no user".into() }));
}

#[test]
fn the_date() {
    assert_eq!(
        text("{{ strftime_now('%d %b %Y|%A %B %-d|%H:%M:%S|%I %p|%j|%F %T|%y %e %u %w %a %%') }}"),
        "06 Jul 2024|Saturday July 6|14:05:09|02 PM|188|2024-07-06 14:05:09|24  6 6 6 Sat %"
    );
    assert!(render("{{ strftime_now('%Q') }}").expect_err("unknown").to_string().contains("%Q"));
    for (unix_s, date) in [
        (0, "1970-01-01 4"),
        (951_782_400, "2000-02-29 2"),
        (1_735_689_599, "2024-12-31 2"),
        (1_735_689_600, "2025-01-01 3"),
        (4_107_542_400, "2100-03-01 1"),
        (-5, "1970-01-01 4"),
        (i64::MAX, "9999-12-31 5"),
    ] {
        assert_eq!(time::strftime(unix_s, "%F %u").expect("known directives"), date);
    }
}

#[test]
fn blocks_take_their_line_with_them() {
    assert_eq!(text("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
    assert_eq!(
        text(
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        ),
        "02"
    );
}

#[test]
fn generation_marks_print_their_body() {
    assert_eq!(text("a {%- generation -%} b {%- endgeneration -%} c"), "abc");
    assert_eq!(text("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}"), "21");
    assert_eq!(
        text("{% raw %}{% generation %}{% endraw %}{# {% generation %} #}{{ '{% generation %}' }}"),
        "{% generation %}{% generation %}"
    );
    assert_eq!(text("{ {{ generation }}{% set generation = 1 %}{{ generation }}"), "{ 1");
    let source = "é { {{ '}}' }} {% set a = '%}' %} {# '#} {{";
    assert_eq!(generation::rewrite(source), source);
}

#[test]
fn python_where_the_engine_differs() {
    assert_eq!(
        text("{{ none is iterable }} {{ nothing is iterable }} {{ [] is iterable }} {{ 1 is iterable }}"),
        "False True True False"
    );
    assert_eq!(
        text("{{ '{\n'|indent(4, first=true) }}|{{ 'a\n\nb\r\nc'|indent(2) }}|{{ 'a\nb'|indent('>>') }}"),
        "    {\n|a\n\n  b\n  c|a\n>>b"
    );
    assert_eq!(
        text("{{ 'a-b-c'.split('-')[-1] }}{{ ' x '.strip() }}{{ {'k': 1}.get('k') }}{{ none }}"),
        "cx1None"
    );
}

#[test]
fn bad_templates_are_named() {
    assert!(matches!(render("a\n{% if %}"), Err(ChatError::Syntax { line: 2, .. })));
    assert!(matches!(
        render("a\n\n{{ messages[0].content.nope() }}"),
        Err(ChatError::Failed { line: 3, .. })
    ));
    assert!(matches!(render(&" ".repeat(MAX_SOURCE_BYTES + 1)), Err(ChatError::TooLong { .. })));
    let missing = ChatTemplate::of_model(None, "", "").expect_err("no template").to_string();
    assert!(missing.contains("--chat-template") && missing.contains("complete"));
}

#[test]
fn hostile_templates_end() {
    let grow = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(20) %}{% set ns.x = ns.x + ns.x %}{% endfor %}";
    let nest =
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    for source in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        "{{ 'a' * 1000000000000 }}".to_owned(),
        "{{ '{:>9999999999}'.format('a') }}".to_owned(),
        "{{ '%9999999999s'|format('a') }}".to_owned(),
        format!("{grow}{{{{ ns.x.replace('a', ns.x) }}}}"),
        format!("{grow}{{{{ ns.x.join(range(100000)) }}}}"),
        format!("{grow}{{{{ (ns.x * 8).split('a') }}}}"),
        format!("{nest}{nest}{{% for i in range(100000) %}}{nest}{{% endfor %}}"),
    ] {
        assert_eq!(render(&source), Err(ChatError::Endless), "{source}");
    }
    for source in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        format!("{nest}{{{{ ns.x|tojson }}}}"),
        "{{ messages|tojson(indent=99999999) }}".to_owned(),
        "{{ 'a'|indent(99999999) }}".to_owned(),
        "{{ messages[0].__class__.__mro__[1] }}".to_owned(),
    ] {
        assert!(matches!(render(&source), Err(ChatError::Failed { .. })), "{source}");
    }
    // There is only the one template, so the engine is built without the tags that load others.
    assert!(matches!(render("{% include '/etc/passwd' %}"), Err(ChatError::Syntax { .. })));
    assert!(matches!(render(&"{{ (".repeat(3000)), Err(ChatError::Syntax { .. })));
    assert!(matches!(render(&"{% if 1 %}".repeat(9000)), Err(ChatError::Syntax { .. })));
    assert_eq!(text(nest), "", "a deep list is dropped without harm");
    // Work the engine does not charge for ends with the deadline.
    let shared =
        "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    assert_eq!(render(&format!("{shared}{{{{ ns.x|tojson }}}}")), Err(ChatError::Endless));
    assert_eq!(render(&format!("{shared}{{{{ ns.x ~ '' }}}}")), Err(ChatError::Endless));
}

#[test]
fn a_long_conversation_fits_the_fuel() {
    let source = "{% for m in messages %}{% set c = m.content|trim %}{{ '<|' + m.role + '|>' + c + eos_token }}{% endfor %}";
    let messages = vec![Message::new("user", "word ".repeat(200)); 2000];
    let template = ChatTemplate::new(source, "", "</s>").expect("compiles");
    let rendered = template.render(&messages, true, &Value::Null).expect("2 MB of conversation");
    assert_eq!(rendered.len(), 2000 * (999 + "<|user|></s>".len()));
}
