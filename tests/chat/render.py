#!/usr/bin/env python3
"""Renders chat templates with Python's jinja2, the engine chat templates are written for.

    render.py TEMPLATES OUT

TEMPLATES is a folder of *.jinja files. Writes OUT/templates/*.jinja (copies) and OUT/expected.json:

    {"clock_unix_s": .., "bos_token": .., "eos_token": ..,
     "conversations": [..conversations.json..],
     "renderings": {"file.jinja": {"conversation": {"text": ..} or {"error": ..}}}}

The environment is the one Hugging Face transformers documents for `apply_chat_template`: the immutable
sandbox, trim_blocks and lstrip_blocks, break and continue, a `{% generation %}` tag that prints its body, a
`tojson` that is plain json.dumps with ensure_ascii off, `raise_exception` and `strftime_now`. `tools` and
`documents` are always defined, None when there are none. The clock stands still.
"""

import datetime
import json
import pathlib
import shutil
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

CLOCK = datetime.datetime(2024, 7, 6, 14, 5, 9, tzinfo=datetime.timezone.utc)
BOS = "<s>"
EOS = "</s>"


class Refused(Exception):
    """What `raise_exception` raises, to tell a template's own refusal from a failure."""


class Generation(jinja2.ext.Extension):
    """`{% generation %} .. {% endgeneration %}`: marks what the assistant says; the text is printed as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("body_text")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def body_text(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message):
    raise Refused(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = CLOCK.strftime
    return env


def render(env, source, conversation):
    try:
        text = env.from_string(source).render(
            messages=conversation["messages"],
            tools=conversation.get("tools"),
            documents=conversation.get("documents"),
            add_generation_prompt=conversation["add_generation_prompt"],
            bos_token=BOS,
            eos_token=EOS,
            **conversation.get("extra", {}),
        )
    except Refused as refusal:
        return {"error": str(refusal), "refused": True}
    except Exception as error:  # every other failure is a rendering that must fail here too
        return {"error": f"{type(error).__name__}: {error}", "refused": False}
    return {"text": text}


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: render.py TEMPLATES OUT")
    templates = sorted(pathlib.Path(sys.argv[1]).glob("*.jinja"))
    if not templates:
        sys.exit(f"no *.jinja file in {sys.argv[1]}")
    out = pathlib.Path(sys.argv[2])
    shutil.rmtree(out / "templates", ignore_errors=True)
    (out / "templates").mkdir(parents=True)
    conversations = json.loads(pathlib.Path(__file__).with_name("conversations.json").read_text("utf-8"))
    env = environment()
    renderings = {}
    for path in templates:
        source = path.read_text("utf-8")
        shutil.copyfile(path, out / "templates" / path.name)
        renderings[path.name] = {c["name"]: render(env, source, c) for c in conversations}
    expected = {
        "clock_unix_s": int(CLOCK.timestamp()),
        "bos_token": BOS,
        "eos_token": EOS,
        "conversations": conversations,
        "renderings": renderings,
    }
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", "utf-8")
    texts = sum("text" in r for rs in renderings.values() for r in rs.values())
    total = sum(len(rs) for rs in renderings.values())
    print(f"{len(templates)} templates x {len(conversations)} conversations: {texts} texts, {total - texts} errors")


if __name__ == "__main__":
    main()
