"""Draws how long encoding takes, by type: `quantize` and llama.cpp's `llama-quantize` side by side.

    python tests/quantize/times.py QUANTIZE LLAMA_QUANTIZE SOURCE-f16.gguf PICTURE.svg [--layers N] [--rounds N] [--threads N]
                                   [--mixes] [--types TYPE ...]

Both programs make the same pure types of the same file, in turns, on an idle machine; the median of the rounds counts,
wall clock from start to end, files in memory (/dev/shm). With --layers only the first layers and no embeddings are taken.
With --mixes types are the usual mixes, such as Q4_K_M. The memory printed is the most that was resident, mapped files too.
Needs numpy, gguf==0.19.0.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import time

import gguf

TYPES = "Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K Q2_K".split()
# llama-quantize names what it makes after mixes; --pure makes them one type.
LLAMA = {"Q5_K": "Q5_K_S", "Q4_K": "Q4_K_S", "Q3_K": "Q3_K_S"}
OURS = {"Q5_K": "Q5_K_S", "Q4_K": "Q4_K_S", "Q3_K": "Q3_K_S"}
COLOURS = ("#0072b2", "#e69f00")


def cut(source, target, layers):
    """The first layers of a model as a model of its own."""
    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, arch)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key.startswith("tokenizer."):
            continue
        value = layers if key == f"{arch}.block_count" else field.contents()
        if not isinstance(value, list):
            writer.add_key_value(key, value, field.types[0])
    names = tuple(f"blk.{i}." for i in range(layers)) + ("output_norm",)
    for tensor in reader.tensors:
        if tensor.name.startswith(names):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(command):
    """Seconds, and the most memory in MB."""
    start, most = time.perf_counter(), 0
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None:
        # The most so far; what wait4 tells would begin with the memory of this process.
        for line in pathlib.Path(f"/proc/{child.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                most = int(line.split()[1]) * 1024
        time.sleep(0.005)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, most / 1e6


def draw(path, title, rows, command):
    width, left, bar, gap, top = 760, 80, 14, 12, 70
    longest = max(max(pair) for _, pair in rows)
    scale = (width - left - 90) / longest
    height = top + len(rows) * (2 * bar + gap) + 10
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f"<desc>{command}</desc>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="24" font-size="15">{title}</text>',
    ]
    for i, name in enumerate(("quantize", "llama-quantize")):
        out.append(f'<rect x="{left + 130 * i}" y="38" width="12" height="12" fill="{COLOURS[i]}"/>')
        out.append(f'<text x="{left + 130 * i + 18}" y="49">{name}</text>')
    for i, (name, pair) in enumerate(rows):
        y = top + i * (2 * bar + gap)
        out.append(f'<text x="{left - 8}" y="{y + bar + 4}" text-anchor="end">{name}</text>')
        for j, value in enumerate(pair):
            out.append(f'<rect x="{left}" y="{y + j * bar}" width="{value * scale:.1f}" height="{bar - 1}" fill="{COLOURS[j]}"/>')
            out.append(f'<text x="{left + value * scale + 6:.1f}" y="{y + j * bar + 11}">{value:.2f} s</text>')
    out.append("</svg>")
    pathlib.Path(path).write_text("\n".join(out) + "\n")


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("quantize", "llama_quantize", "source", "picture"):
        args.add_argument(name)
    args.add_argument("--layers", type=int)
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--types", nargs="+", default=TYPES)
    args.add_argument("--mixes", action="store_true")
    args = args.parse_args()
    pure = [] if args.mixes else ["--pure"]
    shown = f"python tests/quantize/times.py quantize llama-quantize SOURCE-f16.gguf PICTURE.svg --layers {args.layers} --rounds {args.rounds}"
    source, made = args.source, f"/dev/shm/times-{os.getpid()}.gguf"
    part = f"/dev/shm/times-source-{os.getpid()}.gguf"
    try:
        if args.layers:
            cut(source, part, args.layers)
            source = part
        values = sum(int(t.n_elements) for t in gguf.GGUFReader(source).tensors)
        rows = []
        for name in args.types:
            ours = [args.quantize, source, made, "--type", OURS.get(name, name), *pure, "--force", "-j", str(args.threads)]
            theirs = [args.llama_quantize, *pure, source, made, LLAMA.get(name, name), str(args.threads)]
            rounds = [[run(ours), run(theirs)] for _ in range(args.rounds)]
            pair = [statistics.median(one[0] for one in column) for column in zip(*rounds)]
            memory = [max(one[1] for one in column) for column in zip(*rounds)]
            print(f"{name:7} {pair[0]:7.2f} s {pair[1]:7.2f} s  {pair[1] / pair[0]:.2f}x  "
                  f"{memory[0]:.0f} MB {memory[1]:.0f} MB", flush=True)
            rows.append((name, pair))
        draw(args.picture, f"Encoding {values / 1e6:.0f} million F16 weights, {args.threads} threads", rows, shown)
    finally:
        for path in (made, part):
            pathlib.Path(path).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
