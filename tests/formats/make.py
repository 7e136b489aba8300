"""Writes vectors.bin: blocks of every format and what PyPI gguf's `dequantize` makes of them.

    pip install numpy gguf==0.19.0
    python tests/formats/make.py            # from the root of the repository; the result is deterministic

The file holds one record per format, everything little-endian:

    name, 16 bytes padded with zeros
    u32 length of the blocks in bytes
    u32 number of values
    the blocks
    the values as f32

Per format: blocks of random bytes with scales of an ordinary size, then every combination of hostile scales (zeros,
subnormals, extremes, infinities, NaN) and hostile quants (all bits clear, all bits set, random).
"""

import itertools
import pathlib
import struct

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

# Where a format keeps its f16 scales and offsets inside a block.
F16_AT = {
    T.Q4_0: [0],
    T.Q4_1: [0, 2],
    T.Q5_0: [0],
    T.Q5_1: [0, 2],
    T.Q8_0: [0],
    T.Q2_K: [80, 82],
    T.Q3_K: [108],
    T.Q4_K: [0, 2],
    T.Q5_K: [0, 2],
    T.Q6_K: [208],
    T.IQ4_NL: [0],
    T.IQ4_XS: [0],
}
# +0, -0, least subnormal, greatest subnormal, greatest, least, infinities, NaN
HOSTILE_F16 = [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00]
HOSTILE_F32 = [0x0, 0x80000000, 0x1, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000]

rng = np.random.default_rng(20240607)


def random_bytes(n):
    return rng.integers(0, 256, n, dtype=np.uint8)


def quantized(kind, size):
    """Blocks of a format with f16 scales."""
    at = F16_AT[kind]
    blocks = []
    for _ in range(10):
        block = random_bytes(size)
        for place in at:
            block[place : place + 2] = np.array([rng.normal() * 0.02], np.float16).view(np.uint8)
        blocks.append(block)
    scales = list(itertools.product(HOSTILE_F16, repeat=len(at)))
    # All pairs of hostile scales for the small blocks, a sample of them for the large ones.
    if len(scales) > 9 and size > 32:
        scales = [scales[i] for i in rng.permutation(len(scales))[:10]]
    fills = [lambda: np.zeros(size, np.uint8), lambda: np.full(size, 255, np.uint8), lambda: random_bytes(size)]
    for number, words in enumerate(scales):
        for fill in fills if size <= 32 and len(at) == 1 else [fills[number % 3]]:
            block = fill()
            for place, word in zip(at, words):
                block[place : place + 2] = np.array([word], np.uint16).view(np.uint8)
            blocks.append(block)
    return np.concatenate(blocks)


def blocks_of(kind, size):
    if kind == T.F32:
        return np.concatenate([np.array(HOSTILE_F32, np.uint32).view(np.uint8), random_bytes(4 * 600)])
    if kind in (T.F16, T.BF16):
        return np.arange(0, 65536, 13 if kind == T.F16 else 29, dtype=np.uint16).view(np.uint8)
    if kind == T.MXFP4:
        exponents = [0, 1, 2, 3, 126, 127, 128, 253, 254, 255]
        return np.concatenate([np.concatenate([np.array([e], np.uint8), random_bytes(size - 1)]) for e in exponents])
    return quantized(kind, size)


out = bytearray()
names = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
with np.errstate(all="ignore"):
    for name in names:
        kind = T[name]
        size = gguf.GGML_QUANT_SIZES[kind][1]
        blocks = blocks_of(kind, size)
        values = gguf.quants.dequantize(blocks, kind).astype("<f4").reshape(-1)
        out += struct.pack("<16sII", name.encode(), blocks.size, values.size) + blocks.tobytes() + values.tobytes()
path = pathlib.Path(__file__).parent / "vectors.bin"
path.write_bytes(out)
print(f"{path}: {len(out)} bytes")
