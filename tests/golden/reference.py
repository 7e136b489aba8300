"""The forward pass of every supported architecture in float64 numpy: the specification, in one sitting.

usage: reference.py MODEL.gguf TOKEN [TOKEN ...]    (prints ln p of each token and the best next token)

Written from the papers and published model definitions:
  LLaMA       arXiv 2302.13971   pre-RMSNorm, rotary pairs (2k, 2k+1), SwiGLU, no biases
  Llama 3.1   arXiv 2407.21783   a factor per rotary pair (tensor rope_freqs.weight)
  Qwen2       arXiv 2407.10671   biases on Q, K, V; rotary pairs (k, k + d/2)
  Qwen3       arXiv 2505.09388   RMSNorm per head on Q and K before the rotation; its MoE keeps the k most likely experts
  Gemma 3     arXiv 2503.19786   five local layers to one global, norms after the blocks too, GeGLU, scaled embedding
  StarCoder2  arXiv 2402.19173   LayerNorm, biases everywhere, GELU without a gate, sliding window
  Granite 3   IBM model cards    llama with four fixed multipliers
  cchaha      our own            Qwen3 with scope positions on slow rotary pairs, and windows that see imports and headers
  RoPE 2104.09864, YaRN 2309.00071, position interpolation 2306.15595, GQA 2305.13245, GELU (tanh form) 1606.08415

Shapes: n tokens, d = n_embd, h query heads, g KV heads, e = head_dim, v = n_vocab.
"""

import ast
import math
import sys
from dataclasses import dataclass

import numpy as np
from gguf import GGUFReader, dequantize

ROWS_PER_SLICE = 8192  # rows of a large matrix dequantized at a time, to bound memory


def rms_norm(x, weight, bias, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) * weight + bias


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@dataclass(frozen=True)
class Family:
    """What the metadata and the list of tensors do not tell about an architecture."""

    activation: callable = silu
    norm: callable = rms_norm
    halves: bool = True  # a rotary pair is (k, k + e/2), else (2k, 2k + 1)
    scaled_embedding: bool = False  # embeddings times sqrt(n_embd)


FAMILIES = {
    "llama": Family(halves=False),
    "granite": Family(halves=False),
    "qwen2": Family(),
    "qwen3": Family(),
    "qwen3moe": Family(),
    "gemma3": Family(activation=gelu_tanh, scaled_embedding=True),
    "starcoder2": Family(activation=gelu_tanh, norm=layer_norm),
    "cchaha": Family(),
}


def places(source, pieces):
    """For each piece (bytes) of a valid Python source: its scope position, and whether it is pinned.

    The scope position counts the statements of the module that have begun, its functions and classes that have ended
    (which shows where the next statement begins), and the blocks that have been opened before the piece. A piece is pinned if the line of its first visible byte belongs to an import or to the header of a function
    or a class, decorators included.
    """
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tree = ast.parse(source)
    events = [starts[min([s.lineno, *(d.lineno for d in getattr(s, "decorator_list", []))]) - 1] for s in tree.body]
    events += [e for e, s in zip(events[1:], tree.body) if isinstance(s, (ast.FunctionDef, ast.ClassDef))]
    for s in tree.body:  # a decorator and what it decorates are two statements to a reader who cannot look ahead
        if getattr(s, "decorator_list", []):
            events += [starts[d.lineno - 1] for d in s.decorator_list[1:]] + [starts[s.lineno - 1]]
    pinned = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            pinned.update(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.For, ast.If, ast.While, ast.With)):
            body = node.body[0]
            opener = source.rindex(":", 0, starts[body.lineno - 1] + body.col_offset)
            events.append(opener)
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                pinned.update(range(first, source.count("\n", 0, opener) + 2))
    at, found = 0, []
    for piece in pieces:
        visible = at + len(piece) - len(piece.lstrip())
        line = source.count("\n", 0, visible) + 1
        found.append((sum(event < at for event in events), line in pinned))
        at += len(piece)
    return found


def spelled_bytes():
    """The characters in which byte-level BPE spells bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.metadata = {key: field.contents() for key, field in reader.fields.items()}
        self.arch = self.metadata["general.architecture"]
        self.family = FAMILIES[self.arch]
        self.tensors = {t.name: t for t in reader.tensors}
        self.n_layers, self.n_embd, n_heads = (
            self.key(k) for k in ("block_count", "embedding_length", "attention.head_count"))
        self.n_heads, self.n_kv_heads = n_heads, self.key("attention.head_count_kv", n_heads)
        self.head_dim = self.key("attention.key_length", self.n_embd // n_heads)
        kind = "layer_norm_epsilon" if self.family.norm is layer_norm else "layer_norm_rms_epsilon"
        self.eps = self.key("attention." + kind)

    def key(self, name, default=None):
        value = self.metadata.get(f"{self.arch}.{name}", default)
        if value is None:
            raise KeyError(f"{self.arch}.{name}")
        return value

    def rows(self, name, index=slice(None)):
        """Rows of a tensor, dequantized, as float64."""
        t = self.tensors[name]
        return dequantize(t.data[index], t.tensor_type).astype(np.float64)

    def optional(self, name):
        return self.rows(name) if name in self.tensors else None

    def linear(self, x, name):
        """x (n, in) -> (n, out), with the bias where the file has one."""
        n_out = self.tensors[name + ".weight"].data.shape[0]
        y = np.concatenate([x @ self.rows(name + ".weight", slice(i, i + ROWS_PER_SLICE)).T
                            for i in range(0, n_out, ROWS_PER_SLICE)], axis=-1)
        bias = self.optional(name + ".bias")
        return y if bias is None else y + bias

    def norm(self, x, name):
        return self.family.norm(x, self.rows(name + ".weight"), self.optional(name + ".bias"), self.eps)

    def norm_if_present(self, x, name):
        return self.norm(x, name) if name + ".weight" in self.tensors else x

    def is_local(self, layer):
        """Whether a layer sees only the sliding window: all of them, or in Gemma 3 all but every sixth."""
        if self.key("attention.sliding_window", 0) == 0:
            return False
        if self.arch == "cchaha":
            return self.key("attention.sliding_window_pattern")[layer]
        return self.arch != "gemma3" or (layer + 1) % self.key("attention.sliding_window_pattern", 6) != 0

    def rope_table(self, n, layer):
        """cos and sin, each (n, 1, e/2), of the angle of every position and rotary pair."""
        e = self.head_dim
        base = self.key("rope.freq_base", 10000.0)
        kind, factor = self.key("rope.scaling.type", "none"), self.key("rope.scaling.factor", 1.0)
        if self.arch == "gemma3" and self.is_local(layer):
            base, kind = self.key("rope.freq_base_swa", 10000.0), "none"
        frequency = base ** (-np.arange(0, e, 2) / e)
        magnitude = 1.0
        if kind == "linear":
            frequency = frequency / factor
        elif kind == "yarn":
            # Pairs that turn more than beta_fast times in the trained length keep their frequency, those
            # that turn less than beta_slow times are interpolated, and a ramp joins the two.
            length = self.key("rope.scaling.original_context_length")
            pair = [e * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base)) for turns in (32.0, 1.0)]
            low, high = max(math.floor(pair[0]), 0), min(math.ceil(pair[1]), e - 1)
            interpolated = np.clip((np.arange(e // 2) - low) / max(high - low, 0.001), 0, 1)
            frequency = frequency * (interpolated / factor + 1 - interpolated)
            magnitude = 0.1 * math.log(factor) + 1
        elif kind != "none":
            raise ValueError(f"rope.scaling.type {kind}")
        divisor = self.optional("rope_freqs.weight")
        if divisor is not None:
            frequency = frequency / divisor
        position = np.repeat(np.arange(n)[:, None], e // 2, axis=1).astype(np.float64)
        if self.arch == "cchaha":
            split = self.key("rope.scope_split")
            position[:, split:] = self.key("rope.sigma") * np.array([place[0] for place in self.places])[:, None]
        angle = position[:, None, :] * frequency
        return np.cos(angle) * magnitude, np.sin(angle) * magnitude

    def rotate(self, x, table):
        """x (n, heads, e)"""
        cos, sin = table
        half = self.head_dim // 2
        first, second = (slice(0, half), slice(half, None)) if self.family.halves else (slice(0, None, 2), slice(1, None, 2))
        a, b = x[..., first], x[..., second]
        out = np.empty_like(x)
        out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
        return out

    def attention(self, x, layer):
        n, at = len(x), f"blk.{layer}.attn_"
        q, k, v = (self.linear(x, at + c).reshape(n, -1, self.head_dim) for c in "qkv")  # (n, h or g, e)
        table = self.rope_table(n, layer)
        q = self.rotate(self.norm_if_present(q, at + "q_norm"), table)
        k = self.rotate(self.norm_if_present(k, at + "k_norm"), table)
        k, v = (np.repeat(c, self.n_heads // self.n_kv_heads, axis=1) for c in (k, v))  # (n, h, e)
        scale = self.key("attention.scale", 1 / math.sqrt(self.head_dim))
        score = np.einsum("qhe,khe->hqk", q, k) * scale
        distance = np.arange(n)[:, None] - np.arange(n)  # query position - key position
        visible = distance >= 0
        if self.is_local(layer):
            near = distance < self.key("attention.sliding_window")
            if self.key("attention.pins", False):
                near |= np.array([place[1] for place in self.places])
            visible &= near
        weight = softmax(np.where(visible, score, -np.inf))
        return self.linear(np.einsum("hqk,khe->qhe", weight, v).reshape(n, -1), at + "output")

    def feed_forward(self, x, layer):
        at, f = f"blk.{layer}.ffn_", self.family.activation
        if at + "gate_inp.weight" in self.tensors:
            return self.experts(x, at)
        up = self.linear(x, at + "up")
        hidden = f(self.linear(x, at + "gate")) * up if at + "gate.weight" in self.tensors else f(up)
        return self.linear(hidden, at + "down")

    def experts(self, x, at):
        """Each token goes to its most likely experts, weighted by their renormalised probabilities."""
        chance = softmax(self.linear(x, at + "gate_inp"))  # (n, experts)
        chosen = np.argsort(-chance, axis=-1, kind="stable")[:, : self.key("expert_used_count")]
        y = np.zeros_like(x)
        for expert in range(chance.shape[-1]):
            who = np.nonzero((chosen == expert).any(-1))[0]
            share = chance[who, expert] / np.take_along_axis(chance[who], chosen[who], -1).sum(-1)
            gate, up, down = (self.rows(f"{at}{c}_exps.weight", expert) for c in ("gate", "up", "down"))
            y[who] += share[:, None] * ((self.family.activation(x[who] @ gate.T) * (x[who] @ up.T)) @ down.T)
        return y

    def logits(self, tokens):
        """tokens (n) -> logits (n, v)"""
        if self.arch == "cchaha":
            spelled, vocabulary = spelled_bytes(), self.metadata["tokenizer.ggml.tokens"]
            pieces = [bytes(spelled[c] for c in vocabulary[t]) for t in tokens]
            self.places = places(b"".join(pieces).decode(), pieces)
        x = self.rows("token_embd.weight", list(tokens)) * self.key("embedding_scale", 1.0)
        if self.family.scaled_embedding:
            x = x * math.sqrt(self.n_embd)
        residual = self.key("residual_scale", 1.0)
        for layer in range(self.n_layers):
            at = f"blk.{layer}."
            y = self.attention(self.norm(x, at + "attn_norm"), layer)
            x = x + residual * self.norm_if_present(y, at + "post_attention_norm")
            y = self.feed_forward(self.norm(x, at + "ffn_norm"), layer)
            x = x + residual * self.norm_if_present(y, at + "post_ffw_norm")
        head = "output" if "output.weight" in self.tensors else "token_embd"
        return self.linear(self.norm(x, "output_norm"), head) / self.key("logit_scale", 1.0)

    def logprobs(self, tokens):
        """ln p(tokens[i] | tokens[..i]) for every i but the first, and the distribution after the last."""
        table = log_softmax(self.logits(tokens))
        return [None] + [float(table[i - 1, t]) for i, t in enumerate(tokens) if i > 0], table


def greedy(model, tokens, count):
    """The most likely continuation, and the smallest lead (in logits) any chosen token had over the next best."""
    tokens, lead = list(tokens), math.inf
    for _ in range(count):
        last = model.logits(tokens)[-1]
        second, first = np.argsort(last)[-2:]
        lead = min(lead, float(last[first] - last[second]))
        tokens.append(int(first))
    return tokens[-count:], lead


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    model, tokens = Model(sys.argv[1]), [int(t) for t in sys.argv[2:]]
    each, table = model.logprobs(tokens)
    print(each, int(table[-1].argmax()))
