"""Writes ggml.json: the errors of ggml's encoders, and the tensor types of llama.cpp's mixes.

    python tests/quantize/make.py LIBGGML_BASE LLAMA_QUANTIZE      # from the root of the repository; needs numpy, gguf==0.19.0

"errors": per format the root mean square error of ggml's `ggml_quantize_chunk` on the matrices of stories260K, taken as one
list of rows of 256 values: "plain" without an importance matrix, "weighted" with one and weighted by it, "weighted_plain"
with one and not weighted. Importance of column j: ((j * 37 % 101 + 1) / 50)^2.

"types": per mix the types `llama-quantize --dry-run` gives the tensors of synthetic.gguf, which tests/quantize writes and
whose path it prints when the environment variable CCHAHA_KEEP names where to put it.
"""

import ctypes
import json
import pathlib
import re
import subprocess
import sys

import gguf
import numpy as np

HERE = pathlib.Path(__file__).parent
FORMATS = ["F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"]
MIXES = (
    "F16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS MXFP4_MOE Q3_K_L Q3_K_M Q3_K_S Q2_K Q2_K_S"
).split()
COLS = 256


def values():
    """All matrices of stories260K, in file order, as whole rows of 256."""
    reader = gguf.GGUFReader(HERE.parent / "golden" / "stories260K-f32.gguf")
    parts = [np.array(t.data, np.float32).ravel() for t in reader.tensors if len(t.shape) > 1]
    flat = np.concatenate(parts)
    return flat[: len(flat) // COLS * COLS].reshape(-1, COLS)


def errors(library):
    lib = ctypes.CDLL(library)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    x = values()
    w = (((np.arange(COLS) * 37 % 101 + 1) / 50) ** 2).astype(np.float32)
    result = {}
    for name in FORMATS:
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        lib.ggml_quantize_init(int(kind))
        rows = {}
        for key, weights in (("plain", None), ("weighted", w)):
            out = np.zeros((len(x), COLS // block * size), np.uint8)
            lib.ggml_quantize_chunk(int(kind), x.ctypes.data, out.ctypes.data, 0, len(x), COLS, weights.ctypes.data if weights is not None else None)
            error = (x.astype(np.float64) - gguf.quants.dequantize(out, kind).reshape(x.shape)) ** 2
            scale = np.ones(COLS) if weights is None else w.astype(np.float64)
            rows[key] = float(np.sqrt((error * scale).sum() / (scale.sum() * len(x))))
        rows["weighted_plain"] = float(np.sqrt(error.mean()))
        result[name] = rows
    return result


def types(program):
    path = HERE / "synthetic.gguf"
    result = {}
    for mix in MIXES:
        run = subprocess.run([program, "--dry-run", path, "/dev/null", mix], capture_output=True, text=True)
        found = {}
        for line in (run.stdout + run.stderr).splitlines():
            if match := re.match(r"\[ *\d+/ *\d+\] (\S+) +- .*type = +(\S+),(.*)", line):
                new = re.search(r"-> .*\((\S+)\)", match[3])
                found[match[1]] = (new[1] if new else match[2]).upper()
        assert found, run.stderr
        names = sorted(set(found.values()), key=lambda t: -list(found.values()).count(t))
        result[mix] = {t: sorted(n for n in found if found[n] == t) for t in names}
    return result


if __name__ == "__main__":
    data = {"errors": errors(sys.argv[1]), "types": types(sys.argv[2])}
    (HERE / "ggml.json").write_text(json.dumps(data, indent=1) + "\n")
