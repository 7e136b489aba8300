"""Compares the errors of `quantize` and llama.cpp's `llama-quantize`, type by type, without and with an importance matrix.

    python tests/quantize/errors.py QUANTIZE LLAMA_QUANTIZE SOURCE-f16.gguf IMATRIX.gguf [--layers N] [--types TYPE ...]

Both programs make the same pure types of the first layers. Printed are the least and the largest ratio, ours over theirs,
over the matrices there: of the RMSE, and of the RMSE with every column weighted by its importance. Needs numpy, gguf==0.19.0.
"""

import argparse
import os
import pathlib
import subprocess

import gguf
import numpy as np
from times import LLAMA, OURS, TYPES, cut


def importance(path):
    """Mean square of what each column of a matrix is multiplied with, by the matrix's name."""
    tensors = {t.name: np.array(t.data).reshape(-1) for t in gguf.GGUFReader(path).tensors}
    sums = ((name.removesuffix(".in_sum2"), data) for name, data in tensors.items() if name.endswith(".in_sum2"))
    return {name: data / tensors[f"{name}.counts"] for name, data in sums}


def matrices(path):
    return {t.name: (t.tensor_type, gguf.dequantize(t.data, t.tensor_type)) for t in gguf.GGUFReader(path).tensors
            if len(t.shape) == 2}


def errors(path, source, weights):
    """RMSE and weighted RMSE of each matrix, with its type."""
    found = {}
    for name, (kind, values) in matrices(path).items():
        squares = (values.astype(np.float64) - source[name][1]) ** 2
        weight = weights[name]
        found[name] = kind, np.sqrt(squares.mean()), np.sqrt((squares * weight).mean() / weight.mean())
    return found


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("quantize", "llama_quantize", "source", "imatrix"):
        args.add_argument(name)
    args.add_argument("--layers", type=int, default=2)
    args.add_argument("--types", nargs="+", default=TYPES)
    args = args.parse_args()
    part, ours, theirs = (f"/dev/shm/errors-{name}-{os.getpid()}.gguf" for name in ("source", "ours", "theirs"))
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        cut(args.source, part, args.layers)
        source, weights = matrices(part), importance(args.imatrix)
        for name in args.types:
            for given in ([], ["--imatrix", args.imatrix]):
                subprocess.run([args.quantize, part, ours, "--type", OURS.get(name, name), "--pure", "--force", *given], **quiet)
                subprocess.run([args.llama_quantize, *given, "--pure", part, theirs, LLAMA.get(name, name)], **quiet)
                ours_at, theirs_at = (errors(path, source, weights) for path in (ours, theirs))
                if any(ours_at[tensor][0] != theirs_at[tensor][0] for tensor in source):
                    raise SystemExit(f"{name}: the programs chose different types")
                ratios = [[ours_at[t][i] / theirs_at[t][i] for t in source] for i in (1, 2)]
                shown = (f"{what} {min(column):.4f} to {max(column):.4f}" for what, column in zip(("plain", "weighted"), ratios))
                print(f"{name:7} {'imatrix' if given else '-':7}", *shown, flush=True)
    finally:
        for path in (part, ours, theirs):
            pathlib.Path(path).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
