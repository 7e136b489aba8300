"""Compares the exact reference with llama.cpp on every tiny model: the largest |difference of a logit|, all positions.

usage: check.py [LIMIT]    (default 1e-4; exits 1 where a model is further off)

llama.cpp's stock CPU build looks GELU up in a table of half floats, which moves gemma3 and starcoder2 by up to 7e-3;
built without `#define GGML_GELU_FP16` (ggml/src/ggml-cpu/vec.h) it agrees on them as closely as on the others.
It does not know StarCoder2's sliding window; that model is fed token by token while cells that leave the window are
dropped from llama.cpp's cache, which comes to the same.
"""

import json
import sys

import numpy as np

from llamacpp import VERSION, Llama
from make import MODELS, model_path
from reference import Model


def main(limit):
    print(VERSION)
    far = []
    for build in MODELS:
        path = model_path(build)
        golden = json.loads(path.with_suffix(".json").read_text())
        tokens = golden["tokens"]
        model, other = Model(path), Llama(path, exact=True, threads=1)
        window = model.key("attention.sliding_window", 0) if model.arch == "starcoder2" else 0
        whole = tokens + golden["greedy"]
        logits = other.feed_through_window(whole, window) if window else other.feed(whole)
        difference = np.abs(model.logits(whole) - logits).max()
        same = logits[len(tokens) - 1 : -1].argmax(-1).tolist() == golden["greedy"]
        other.close()
        if not (difference <= limit and same):
            far.append(path.stem)
        print(f"{path.stem:20} max |difference of a logit| {difference:.1e}   same greedy tokens: {same}")
    return far


if __name__ == "__main__":
    if far := main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e-4):
        sys.exit("not as in llama.cpp: " + " ".join(far))
