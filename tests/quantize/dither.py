"""Makes a fair source for measuring quantization where only a quantized file of a model is to be had.

    quantize QUANTIZED.gguf SOURCE.gguf --type F16
    python tests/quantize/dither.py QUANTIZED.gguf SOURCE.gguf [SEED]     # changes SOURCE.gguf; needs numpy, gguf==0.19.0

The decoded weights of QUANTIZED lie on its own grid, so quantizing them to the same types again would lose nothing. To
every weight of a quantized tensor this adds independent noise, uniform over one step of the weight's own block: the
result is a model QUANTIZED is the rounding of, with no grid of its own. The same seed gives the same file.
"""

import sys

import gguf
import numpy as np

CHUNK = 1 << 24  # values at a time


def halves(blocks, at):
    return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)


def steps(kind, blocks):
    """The distance of neighbouring values in each block: [blocks, runs]."""
    name = kind.name
    if name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        return np.abs(halves(blocks, 0))
    if name in ("Q4_K", "Q5_K"):
        scales, _ = gguf.quants.Q4_K.get_scale_min(blocks[:, 4:16])
        return halves(blocks, 0) * scales.reshape(-1, 8).astype(np.float32)
    if name == "Q6_K":
        return np.abs(halves(blocks, 208) * blocks[:, 192:208].copy().view(np.int8).astype(np.float32))
    raise SystemExit(f"no rule for the steps of {name}")


def main(quantized, source, seed=1):
    random = np.random.default_rng(int(seed))
    reader = gguf.GGUFReader(quantized)
    target = {t.name: t for t in gguf.GGUFReader(source, "r+").tensors}
    for tensor in reader.tensors:
        kind = tensor.tensor_type
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if block == 1:
            continue
        out = target[tensor.name]
        assert out.tensor_type == gguf.GGMLQuantizationType.F16, f"{out.name} of {source} is not F16"
        blocks, values = tensor.data.reshape(-1, size), out.data.reshape(-1)
        for first in range(0, len(blocks), CHUNK // block):
            part = blocks[first : first + CHUNK // block]
            x = gguf.quants.dequantize(part, kind).reshape(len(part), -1)
            step = steps(kind, part)
            step = np.repeat(step, block // step.shape[1], axis=1)
            x += step * (random.random(x.shape, np.float32) - np.float32(0.5))
            values[first * block : first * block + x.size] = x.reshape(-1).astype(np.float16)
    print(f"{source}: dithered")


if __name__ == "__main__":
    main(*sys.argv[1:])
