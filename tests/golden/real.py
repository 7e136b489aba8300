"""What exact arithmetic and llama.cpp say on real weights, for the same tokens.

usage: real.py MODEL_DIR [NAME ...]   NAME: smollm2 qwen2.5-coder-0.5b gemma3-270m stories260K tiny long (default: all)

llama.cpp, with its default CPU settings (f16 KV cache, flash attention, quantized activations), continues a prompt
greedily; the float64 reference then gives the exact ln p of the very same tokens on the dequantized weights. Writes
NAME.json beside this file:
  prompt, tokens (all ids), n_prompt
  exact_logprobs              ln p(tokens[i] | tokens[..i]), float64; null for the first
  exact_greedy_flips          generated tokens that are not the exact argmax
  llama_cpp_logprobs          the same from llama.cpp as it generated: prompt in one batch, then one token at a time
  llama_cpp_prefill_logprobs  the same with all tokens in one batch
  llama_cpp_f32_logprobs      the same as it generated, but with an f32 KV cache and no flash attention
  llama_cpp_mean_abs_delta, llama_cpp_prefill_mean_abs_delta   mean |ln p - exact ln p| over the generated tokens
  llama_cpp                   version, settings and machine
stories260K.json holds a list of such cases; its model stands in this folder. tiny.json has llama_cpp_mean_abs_delta and
llama_cpp_prefill_mean_abs_delta of every tiny model over its golden greedy tokens. long.json has, by model, tokens of a real
text (reference.py), exact_logprobs and llama_cpp_logprobs of what follows the first n_prompt of them, and the mean difference.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from llamacpp import VERSION, Llama, machine
from make import MODELS as TINY_MODELS, model_path
from reference import Model, log_softmax

HERE = Path(__file__).resolve().parent
SETTINGS = f"{VERSION}, CMAKE_BUILD_TYPE=Release GGML_NATIVE=ON, default parameters, 2 threads; {machine()}"
CODE = 'def is_palindrome(text: str) -> bool:\n    """Return True if text reads the same backwards."""\n'
MODELS = {  # file, prompts, tokens to generate
    "smollm2": ("SmolLM2-135M-Instruct.Q4_1.gguf", [CODE], 94),
    "qwen2.5-coder-0.5b": ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", [CODE], 94),
    "gemma3-270m": ("gemma-3-270m-q4_k_m.gguf", [CODE], 94),
    "stories260K": (HERE / "stories260K-f32.gguf", ["Once upon a time", ""], 240),
}


def picked(tokens, logits):
    """ln p of each token but the first, logits (len - 1, v)"""
    return np.take_along_axis(log_softmax(logits), np.array(tokens[1:])[:, None], -1)[:, 0]


def case(path, prompt, count):
    model, other, plain = Model(path), Llama(path), Llama(path, exact=True)
    tokens = other.tokenize(prompt)
    n_prompt = len(tokens)
    tokens, decode = other.greedy(tokens, count)
    other.reset()
    prefill = picked(tokens, other.feed(tokens[:-1]))
    decode = picked(tokens, decode)
    f32 = picked(tokens, plain.follow(tokens, n_prompt))
    other.close()
    plain.close()
    started = time.monotonic()
    logits = model.logits(tokens[:-1])
    exact = picked(tokens, logits)
    new = slice(n_prompt - 1, None)  # of arrays that start at the second token
    flips = int((logits.argmax(-1) != np.array(tokens[1:]))[new].sum())
    delta, prefill_delta = (float(np.abs(x - exact)[new].mean()) for x in (decode, prefill))
    print(f"  {n_prompt} + {count} tokens: mean |delta ln p| {delta:.6f} in decode, {prefill_delta:.6f} in prefill; "
          f"max {np.abs(decode - exact)[new].max():.6f}, with f32 KV {np.abs(f32 - exact)[new].max():.6f}; "
          f"{flips} flips (exact pass {time.monotonic() - started:.0f} s)", flush=True)
    return {
        "prompt": prompt,
        "tokens": tokens,
        "n_prompt": n_prompt,
        "exact_logprobs": [None, *exact],
        "exact_greedy_flips": flips,
        "llama_cpp_logprobs": [None, *decode],
        "llama_cpp_prefill_logprobs": [None, *prefill],
        "llama_cpp_f32_logprobs": [None, *f32],
        "llama_cpp_mean_abs_delta": delta,
        "llama_cpp_prefill_mean_abs_delta": prefill_delta,
        "llama_cpp": SETTINGS,
    }


def tiny():
    """llama.cpp's default settings on the tiny models."""
    table = {}
    for build in TINY_MODELS:
        path = model_path(build)
        golden = json.loads(path.with_suffix(".json").read_text())
        n_prompt, tokens = len(golden["tokens"]), golden["tokens"] + golden["greedy"]
        model, other = Model(path), Llama(path)
        if model.arch == "starcoder2" and model.key("attention.sliding_window", 0):
            continue  # a window that llama.cpp does not know
        exact = picked(tokens, model.logits(tokens[:-1]))
        decode = picked(tokens, other.follow(tokens, n_prompt))
        other.reset()
        prefill = picked(tokens, other.feed(tokens[:-1]))
        other.close()
        delta, prefill_delta = (float(np.abs(x - exact)[n_prompt - 1 :].mean()) for x in (decode, prefill))
        table[path.stem] = {"llama_cpp_mean_abs_delta": delta, "llama_cpp_prefill_mean_abs_delta": prefill_delta}
        print(f"  {path.stem}: mean |delta ln p| {delta:.6f} in decode, {prefill_delta:.6f} in prefill")
    return lines({**table, "llama_cpp": SETTINGS})


def long(model_dir):
    """What follows a long prompt."""
    n_prompt, text, cases = 512, (HERE / "reference.py").read_text(), {}
    for name in ("smollm2", "qwen2.5-coder-0.5b", "gemma3-270m"):
        path = Path(model_dir) / MODELS[name][0]
        model, other = Model(path), Llama(path, n_ctx=1024)
        tokens = other.tokenize(text)[: n_prompt + 256]
        decode = picked(tokens, other.follow(tokens, n_prompt))[n_prompt - 1 :]
        other.close()
        exact = picked(tokens, model.logits(tokens[:-1]))[n_prompt - 1 :]
        delta = float(np.abs(decode - exact).mean())
        cases[name] = {"n_prompt": n_prompt, "tokens": tokens, "exact_logprobs": [*exact],
                       "llama_cpp_logprobs": [*decode], "llama_cpp_mean_abs_delta": delta}
        print(f"  {name}: {len(exact)} tokens behind {n_prompt}: mean |delta ln p| {delta:.6f}", flush=True)
    return lines({**cases, "llama_cpp": SETTINGS})


def lines(golden):
    return "{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in golden.items()) + "}"


def main(model_dir, names):
    for name in names:
        print(name)
        if name == "long":
            (HERE / "long.json").write_text(long(model_dir) + "\n")
            continue
        if name == "tiny":
            (HERE / "tiny.json").write_text(tiny() + "\n")
            continue
        file, prompts, count = MODELS[name]
        cases = [case(model_dir / file, prompt, count) for prompt in prompts]
        text = lines(cases[0]) if len(cases) == 1 else '{"cases": [\n' + ",\n".join(map(lines, cases)) + "\n]}"
        (HERE / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 2 or (unknown := set(sys.argv[2:]) - {*MODELS, "tiny", "long"}):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:] or [*MODELS, "tiny", "long"])
