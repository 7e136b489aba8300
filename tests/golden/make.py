"""Tiny random models, one per architecture and variant, and what the exact reference computes on them.

usage: make.py            writes NAME.gguf and NAME.json beside this file (committed; the same on every run)
       make.py --check    compares them with what it would write

NAME.json, all from the float64 reference: tokens; logprobs, where logprobs[i] = ln p(tokens[i] | tokens[..i]) and the
first is null; last_logits, after all tokens; greedy, the most likely continuation; greedy_least_lead, the smallest lead
in logits that a token of it had over the next best.

Every weight is a multiple of 1/512 of magnitude at most 1/2 (norms: 1/128, at most 2), so F32, F16 and BF16 hold
it exactly. Projections are scaled so that attention is sharp: a wrong rotation, mask or head order moves the
logits by tenths, not by rounding.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, RopeScalingType, TokenType

from reference import Model, greedy, spelled_bytes

N_TOKENS, N_GREEDY = 48, 24
LEAST_LEAD = 0.05  # in logits: prompts whose greedy continuation hangs on less are passed over


def bpe_vocabulary(w, pre):
    """Byte-level BPE: the 256 bytes as GPT-2 spells them, seven merges, two specials."""
    spelled = list(spelled_bytes())
    merges = ["Ġ t", "h e", "i n", "r e", "Ġt he", "d e", "de f"]
    tokens = spelled + [m.replace(" ", "") for m in merges] + ["<|endoftext|>", "<|im_end|>"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types([TokenType.NORMAL] * (len(tokens) - 2) + [TokenType.CONTROL] * 2)
    w.add_token_merges(merges)
    w.add_bos_token_id(len(tokens) - 2)
    w.add_eos_token_id(len(tokens) - 1)
    w.add_add_bos_token(False)
    return len(tokens)


def spm_vocabulary(w, specials, space_prefix):
    """SentencePiece: specials, 256 byte tokens, and a few pieces with falling scores."""
    pieces = ["▁", "e", "t", "h", "a", "in", "▁t", "he", "▁the"]
    tokens = specials + [f"<0x{b:02X}>" for b in range(256)] + pieces
    kinds = {"<unk>": TokenType.UNKNOWN}
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * (len(specials) + 256) + [-float(i) for i in range(len(pieces))])
    w.add_token_types([kinds.get(s, TokenType.CONTROL) for s in specials] + [TokenType.BYTE] * 256
                      + [TokenType.NORMAL] * len(pieces))
    w.add_bos_token_id(next(i for i, s in enumerate(specials) if s in ("<s>", "<bos>")))
    w.add_eos_token_id(next(i for i, s in enumerate(specials) if s in ("</s>", "<eos>")))
    w.add_unk_token_id(specials.index("<unk>"))
    w.add_add_bos_token(True)
    w.add_add_space_prefix(space_prefix)
    return len(tokens)


class Tiny:
    """Metadata and random tensors of one model. d = n_embd, h = n_heads, g = n_kv_heads, e = head_dim, f = n_ff."""

    def __init__(self, arch, seed, path, *, d=32, h=4, g=2, e=16, f=64, layers=2, theta=10000.0, layer_norm=False):
        self.w, self.random = GGUFWriter(path, arch), np.random.default_rng(seed)
        self.d, self.h, self.g, self.e, self.f, self.layers, self.biased_norms = d, h, g, e, f, layers, layer_norm
        w = self.w
        w.add_name(Path(path).stem)
        w.add_context_length(256)
        w.add_embedding_length(d)
        w.add_block_count(layers)
        w.add_feed_forward_length(f)
        w.add_head_count(h)
        w.add_head_count_kv(g)
        w.add_rope_dimension_count(e)
        w.add_rope_freq_base(theta)
        if e * h != d:
            w.add_key_length(e)
            w.add_value_length(e)
        if layer_norm:
            w.add_layer_norm_eps(1e-5)
        else:
            w.add_layer_norm_rms_eps(1e-6)

    def matrix(self, name, *shape):
        """(out, in), with a spread that keeps the size of a normalised input, and half as much again."""
        steps = np.rint(self.random.normal(0, 512 * 1.5 / np.sqrt(shape[-1]), shape))
        self.w.add_tensor(name, (np.clip(steps, -256, 256) / 512).astype(np.float32))

    def vector(self, name, n, around):
        steps = np.rint(128 * around + self.random.normal(0, 32, n))
        self.w.add_tensor(name, (np.clip(steps, -256, 256) / 128).astype(np.float32))

    def norm(self, name, n=None):
        self.vector(name + ".weight", n or self.d, 1)
        if self.biased_norms:
            self.vector(name + ".bias", self.d, 0)

    def tensors(self, n_vocab, *, tied=True, bias="", qk_norm=False, post_norm=False, gated=True, experts=0):
        """bias: the projections that have one, such as "qkv" (attention), "o" (its output), "f" (both of the FFN)."""
        d, f = self.d, self.f
        self.matrix("token_embd.weight", n_vocab, d)
        for i in range(self.layers):
            at = f"blk.{i}."
            self.norm(at + "attn_norm")
            for c, heads in (("q", self.h), ("k", self.g), ("v", self.g)):
                self.matrix(at + f"attn_{c}.weight", heads * self.e, d)
                if c in bias:
                    self.vector(at + f"attn_{c}.bias", heads * self.e, 0)
                if qk_norm and c != "v":
                    self.norm(at + f"attn_{c}_norm", self.e)
            self.matrix(at + "attn_output.weight", d, self.h * self.e)
            if "o" in bias:
                self.vector(at + "attn_output.bias", d, 0)
            if post_norm:
                self.norm(at + "post_attention_norm")
            self.norm(at + "ffn_norm")
            if experts:
                self.matrix(at + "ffn_gate_inp.weight", experts, d)
                self.matrix(at + "ffn_gate_exps.weight", experts, f, d)
                self.matrix(at + "ffn_up_exps.weight", experts, f, d)
                self.matrix(at + "ffn_down_exps.weight", experts, d, f)
            else:
                if gated:
                    self.matrix(at + "ffn_gate.weight", f, d)
                self.matrix(at + "ffn_up.weight", f, d)
                self.matrix(at + "ffn_down.weight", d, f)
                if "f" in bias:
                    self.vector(at + "ffn_up.bias", f, 0)
                    self.vector(at + "ffn_down.bias", d, 0)
            if post_norm:
                self.norm(at + "post_ffw_norm")
        self.norm("output_norm")
        if not tied:
            self.matrix("output.weight", n_vocab, d)

    def write(self):
        self.w.write_header_to_file()
        self.w.write_kv_data_to_file()
        self.w.write_tensors_to_file()
        self.w.close()


LLAMA_SPECIALS = ["<unk>", "<s>", "</s>"]
GEMMA_SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>"]


def llama(path):
    m = Tiny("llama", 1, path, d=64)
    m.tensors(spm_vocabulary(m.w, LLAMA_SPECIALS, True), tied=False)
    return m


def llama_rope_llama3(path):
    """Llama 3's per-pair divisors: slow pairs by 8, fast ones by 1, a ramp between (low 1, high 4, trained on 64)."""
    m = Tiny("llama", 2, path, theta=500.0)
    m.tensors(bpe_vocabulary(m.w, "llama-bpe"))
    wavelength = 2 * np.pi * 500.0 ** (np.arange(0, m.e, 2) / m.e)
    smooth = np.clip((64 / wavelength - 1) / (4 - 1), 0, 1)
    m.w.add_tensor("rope_freqs.weight", (1 / ((1 - smooth) / 8 + smooth)).astype(np.float32))
    return m


def llama_rope_linear(path):
    m = Tiny("llama", 3, path)
    m.w.add_rope_scaling_type(RopeScalingType.LINEAR)
    m.w.add_rope_scaling_factor(4.0)
    m.tensors(bpe_vocabulary(m.w, "smollm"))
    return m


def llama_rope_yarn(path):
    """Trained on 256 positions, so that the ramp (pairs turning 32 to 1 times) lies inside the head."""
    m = Tiny("llama", 4, path)
    m.w.add_rope_scaling_type(RopeScalingType.YARN)
    m.w.add_rope_scaling_factor(4.0)
    m.w.add_rope_scaling_orig_ctx_len(256)
    m.tensors(bpe_vocabulary(m.w, "deepseek-coder"))
    return m


def qwen2(path):
    m = Tiny("qwen2", 5, path, h=2, g=1, theta=1e6)
    m.tensors(bpe_vocabulary(m.w, "qwen2"), bias="qkv")
    return m


def qwen3(path):
    m = Tiny("qwen3", 6, path, e=32, theta=1e6)
    m.tensors(bpe_vocabulary(m.w, "qwen2"), qk_norm=True)
    return m


def qwen3moe(path):
    m = Tiny("qwen3moe", 7, path, f=32, theta=1e6)
    m.w.add_expert_count(5)
    m.w.add_expert_used_count(2)
    m.w.add_expert_feed_forward_length(32)
    m.tensors(bpe_vocabulary(m.w, "qwen2"), qk_norm=True, experts=5)
    return m


def gemma3(path):
    m = Tiny("gemma3", 8, path, f=32, g=1, layers=7, theta=1e6)
    m.w.add_sliding_window(12)
    m.tensors(spm_vocabulary(m.w, GEMMA_SPECIALS, False), qk_norm=True, post_norm=True)
    return m


def starcoder2(path, window=None, seed=9):
    m = Tiny("starcoder2", seed, path, h=2, g=1, f=96, theta=1e5, layer_norm=True)
    if window:
        m.w.add_sliding_window(window)
    m.tensors(bpe_vocabulary(m.w, "starcoder"), bias="qkvof", gated=False)
    return m


def starcoder2_window(path):
    return starcoder2(path, window=12, seed=10)


def granite(path):
    m = Tiny("granite", 11, path)
    m.w.add_embedding_scale(3.0)
    m.w.add_residual_scale(0.5)
    m.w.add_attention_scale(0.125)
    m.w.add_logit_scale(2.0)
    m.tensors(bpe_vocabulary(m.w, "refact"))
    return m


# Decorators, headers over several lines, blocks on one line, nested scopes, more than the window of it.
SOURCE = """import os
from a import (b,
    c)

@wrap(1)
def f(x,
      y):
    for i in x:
        if i: y += {1: 2}[i]
    return y

class C(b):
    def g(self): return os

    while c:
        n = 3
z = f(1, 2)
z += C().g(
    5)
"""


def cchaha(path):
    m = Tiny("cchaha", 12, path, e=32, theta=1000.0)
    w = m.w
    w.add_sliding_window(48)
    w.add_sliding_window_pattern([True, False])
    w.add_bool("cchaha.attention.pins", True)
    w.add_uint32("cchaha.rope.scope_split", 10)
    w.add_float32("cchaha.rope.sigma", 4.0)
    m.tensors(bpe_vocabulary(w, "qwen2"), qk_norm=True)
    return m


MODELS = [llama, llama_rope_llama3, llama_rope_linear, llama_rope_yarn, qwen2, qwen3, qwen3moe, gemma3, starcoder2,
          starcoder2_window, granite, cchaha]


def measure(model, tokens):
    """What NAME.json says of a model. What `cchaha` reads must be a program, which its random continuation is not."""
    logprobs, _ = model.logprobs(tokens)
    golden = {"tokens": tokens, "logprobs": logprobs, "last_logits": model.logits(tokens)[-1].tolist()}
    if model.arch != "cchaha":
        golden["greedy"], golden["greedy_least_lead"] = greedy(model, tokens, N_GREEDY)
    return golden


def source_tokens(vocabulary):
    """SOURCE in the longest tokens that fit, from left to right."""
    byte_of = spelled_bytes()
    spelled = {b: c for c, b in byte_of.items()}
    rest, tokens = "".join(spelled[b] for b in SOURCE.encode()), []
    while rest:
        piece = max((t for t in vocabulary if rest.startswith(t)), key=len)
        tokens.append(vocabulary.index(piece))
        rest = rest[len(piece):]
    return tokens


def random_prompt(model):
    """BOS and random tokens, the first draw whose greedy continuation never hangs on a near tie."""
    if model.arch == "cchaha":
        return source_tokens(model.metadata["tokenizer.ggml.tokens"])
    n_vocab, bos = len(model.metadata["tokenizer.ggml.tokens"]), model.metadata["tokenizer.ggml.bos_token_id"]
    for seed in range(1000):
        tokens = [bos, *np.random.default_rng(seed).integers(0, n_vocab, N_TOKENS - 1).tolist()]
        if greedy(model, tokens, N_GREEDY)[1] >= LEAST_LEAD:
            return tokens
    raise ValueError("no prompt with a clear continuation")


def make():
    for build in MODELS:
        path = model_path(build)
        build(path).write()
        model = Model(path)
        golden = measure(model, random_prompt(model))
        text = ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in golden.items())
        path.with_suffix(".json").write_text("{" + text + "}\n")
        print(f"{path.stem}: {path.stat().st_size} bytes, mean ln p {np.mean(golden['logprobs'][1:]):.2f}, "
              f"least greedy lead {golden.get('greedy_least_lead', math.nan):.2f}")


def check():
    """The files byte for byte; the numbers to 1e-9, since the order of a sum is the BLAS library's choice."""
    for build in MODELS:
        path = model_path(build)
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder) / path.name).write()
            if (Path(folder) / path.name).read_bytes() != path.read_bytes():
                sys.exit(f"{path} is not what {Path(__file__).name} makes")
        golden = json.loads(path.with_suffix(".json").read_text())
        for key, value in measure(Model(path), golden["tokens"]).items():
            skip = 1 if key == "logprobs" else 0
            old, new = (np.atleast_1d(x)[skip:].astype(np.float64) for x in (golden[key], value))
            if old.shape != new.shape or np.abs(old - new).max() > 1e-9:
                sys.exit(f"{path.with_suffix('.json')}: {key} is not what the reference computes")


def model_path(build):
    return Path(__file__).resolve().parent / (build.__name__.replace("_", "-") + ".gguf")


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    check() if sys.argv[1:] else make()
