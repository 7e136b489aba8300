#!/usr/bin/env python3
"""The training losses of a tiny cchaha model as PyTorch computes them: reference.py OUT.json

An implementation of the architecture, of AdamW and of the schedule that shares nothing with tools/train: autograd instead of
hand-written gradients, whole matrices of scores instead of blocks. It writes the settings, the sequences and the loss of each of 50 steps; both
sides draw the initial weights from the same generator. Debian and Ubuntu: python3-torch.
"""
import json
import math
import sys

import torch
import torch.nn.functional as F

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)

CONFIG = dict(vocab=29, width=24, layers=3, heads=4, kv_heads=2, head_dim=8, hidden=40, context=48, window=10, pattern=3,
              rope_base=1000.0, scope_split=3, sigma=2.0, pins=True)
STEPS, WARMUP, BATCH, LR, DECAY, CLIP = 50, 5, 4, 1e-2, 0.1, 1.0
C = type("Config", (), CONFIG)
EPS = 1e-6


def numbers(n, state=1):
    """In [-0.25, 0.25), exact in f32: the upper 24 bits of a linear congruential generator."""
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield (state >> 40) / 2**25 - 0.25


def parameters():
    shapes = {"token_embd": (C.vocab, C.width)}
    for layer in range(C.layers):
        q, kv = C.heads * C.head_dim, C.kv_heads * C.head_dim
        for name, shape in dict(attn_norm=(C.width,), attn_q=(q, C.width), attn_k=(kv, C.width), attn_v=(kv, C.width),
                                attn_q_norm=(C.head_dim,), attn_k_norm=(C.head_dim,), attn_output=(C.width, q),
                                ffn_norm=(C.width,), ffn_gate=(C.hidden, C.width), ffn_up=(C.hidden, C.width),
                                ffn_down=(C.width, C.hidden)).items():
            shapes[f"blk.{layer}.{name}"] = shape
    shapes["output_norm"] = (C.width,)
    draw = numbers(sum(math.prod(shape) for shape in shapes.values()))
    made = {}
    for name, shape in shapes.items():
        x = torch.tensor([next(draw) for _ in range(math.prod(shape))]).reshape(shape)
        made[name + ".weight"] = (x + (1.0 if len(shape) == 1 else 0.0)).requires_grad_()
    return made


def sequence():
    """Two documents and a gap: tokens, targets, positions, scopes, pins, first token of the document of each."""
    s = dict(tokens=[], targets=[], positions=[], scopes=[], pinned=[], document=[])
    ignored = 2**32 - 1
    for n in (27, C.context - 27 - 4):
        first = len(s["tokens"])
        # Every token depends on the one before it, so that there is something to learn.
        text = [int(torch.randint(0, C.vocab, ()))]
        while len(text) <= n:
            text.append((text[-1] * 3 + int(torch.randint(0, 3, ()))) % C.vocab)
        s["tokens"] += text[:n]
        s["targets"] += text[1:]
        s["positions"] += range(n)
        s["scopes"] += [i // 5 for i in range(n)]
        s["pinned"] += [i % 9 < 2 for i in range(n)]
        s["document"] += [first] * n
    for i in range(4):
        s["tokens"].append(0)
        s["targets"].append(ignored)
        s["positions"].append(0)
        s["scopes"].append(0)
        s["pinned"].append(False)
        s["document"].append(C.context - 4 + i)
    return s


def rms(x, w):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS) * w


def turn(x, positions, scopes):
    """x: (time, heads, head_dim)"""
    pairs = C.head_dim // 2
    k = torch.arange(pairs)
    frequency = C.rope_base ** (-2.0 * k / C.head_dim)
    place = torch.where(k[None] < C.scope_split, positions[:, None].double(), C.sigma * scopes[:, None].double())
    cos, sin = torch.cos(place * frequency)[:, None], torch.sin(place * frequency)[:, None]
    a, b = x[..., :pairs], x[..., pairs:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def visible(s, windowed):
    t = torch.arange(C.context)
    document = torch.tensor(s["document"])
    see = (t[None] <= t[:, None]) & (document[None] == document[:, None])
    if windowed:
        see &= (t[:, None] - t[None] < C.window) | torch.tensor(s["pinned"])[None]
    return see


def loss_of(p, s):
    positions, scopes = torch.tensor(s["positions"]), torch.tensor(s["scopes"])
    x = p["token_embd.weight"][torch.tensor(s["tokens"])]
    for layer in range(C.layers):
        w = {name: p[f"blk.{layer}.{name}.weight"] for name in
             ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_q_norm", "attn_k_norm", "attn_output", "ffn_norm", "ffn_gate",
              "ffn_up", "ffn_down")}
        n = rms(x, w["attn_norm"])
        heads = lambda y, count: y.reshape(C.context, count, C.head_dim)
        q = turn(rms(heads(n @ w["attn_q"].T, C.heads), w["attn_q_norm"]), positions, scopes)
        k = turn(rms(heads(n @ w["attn_k"].T, C.kv_heads), w["attn_k_norm"]), positions, scopes)
        v = heads(n @ w["attn_v"].T, C.kv_heads)
        k, v = (y.repeat_interleave(C.heads // C.kv_heads, 1) for y in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(C.head_dim)
        see = visible(s, (layer + 1) % C.pattern != 0)
        attended = torch.einsum("hqk,khd->qhd", scores.masked_fill(~see, -math.inf).softmax(-1), v)
        x = x + attended.reshape(C.context, -1) @ w["attn_output"].T
        n = rms(x, w["ffn_norm"])
        x = x + (F.silu(n @ w["ffn_gate"].T) * (n @ w["ffn_up"].T)) @ w["ffn_down"].T
    logits = rms(x, p["output_norm.weight"]) @ p["token_embd.weight"].T
    keep = [i for i, target in enumerate(s["targets"]) if target < C.vocab]
    targets = torch.tensor([s["targets"][i] for i in keep])
    return F.cross_entropy(logits[keep], targets, reduction="sum"), len(keep)


def main(out):
    p = parameters()
    norms = [x for x in p.values() if x.dim() == 1]
    matrices = [x for x in p.values() if x.dim() == 2]
    groups = [dict(params=norms, weight_decay=0.0), dict(params=matrices, weight_decay=DECAY)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-10)
    pool = [sequence() for _ in range(8)]
    losses = []
    for step in range(STEPS):
        batch = [pool[(step * BATCH + i) % len(pool)] for i in range(BATCH)]
        sums = [loss_of(p, s) for s in batch]
        loss = sum(s for s, _ in sums) / sum(n for _, n in sums)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(p.values()), CLIP)
        for group in optimizer.param_groups:
            falling = max(STEPS * 0.5, 1.0)
            group["lr"] = LR * ((step + 1) / WARMUP if step < WARMUP else min((STEPS - step) / falling, 1.0))
        optimizer.step()
        losses.append(loss.item())
    data = dict(
        config=CONFIG, steps=STEPS, warmup=WARMUP, batch=BATCH, learning_rate=LR, weight_decay=DECAY, clip=CLIP,
        sequences=pool, losses=losses)
    with open(out, "w") as file:
        json.dump(data, file, separators=(",", ":"))
        file.write("\n")
    print(losses[0], losses[-1])


if __name__ == "__main__":
    main(sys.argv[1])
