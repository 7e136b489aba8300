#!/usr/bin/env python3
"""Decode and prefill speed of cchaha-run beside llama.cpp on the same files, in one run.

usage: benches/yardstick.py MODEL.gguf [MODEL.gguf ..] [-t THREADS] [-p PROMPT] [-n GEN] [-r ROUNDS] [--llama-bench PATH] [--vulkan]

The two take turns (A B A B ..), one repetition each a turn; the table shows medians and the ratio of medians. Only the
ratio means something on a shared machine. Without --llama-bench, llama.cpp is built once from the PyPI sdist below into
target/yardstick (about 20 minutes on two cores), natively, in Release mode. With --vulkan both run on the graphics card, and
llama.cpp is built with its Vulkan back end, which needs glslc, Vulkan's headers and those of SPIR-V.
"""
import argparse, json, os, statistics, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SDIST = "llama-cpp-python==0.3.36"
WORK = os.path.join(ROOT, "target", "yardstick")


def build_llama_bench(vulkan):
    """Path of llama-bench, built on the first call."""
    build = os.path.join(WORK, "build-vulkan" if vulkan else "build")
    binary = os.path.join(build, "bin", "llama-bench")
    if os.path.exists(binary):
        return binary
    os.makedirs(WORK, exist_ok=True)
    venv = os.path.join(WORK, "venv")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    tools = os.path.join(venv, "bin")
    pip = [os.path.join(tools, "python"), "-m", "pip"]
    subprocess.run(pip + ["install", "-q", "cmake", "ninja", "scikit-build-core[pyproject]"], check=True)
    env = dict(os.environ, PATH=tools + os.pathsep + os.environ["PATH"])
    subprocess.run(pip + ["download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", "llama-cpp-python",
                          SDIST, "-d", WORK], check=True, env=env)
    name = "llama_cpp_python-" + SDIST.split("==")[1]
    subprocess.run(["tar", "xf", name + ".tar.gz"], check=True, cwd=WORK)
    source = os.path.join(WORK, name, "vendor", "llama.cpp")
    subprocess.run(["cmake", "-G", "Ninja", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release",
                    "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF",
                    "-DLLAMA_BUILD_EXAMPLES=OFF", f"-DGGML_VULKAN={'ON' if vulkan else 'OFF'}"],
                   check=True, env=env, stdout=sys.stderr)
    subprocess.run(["ninja", "-C", build, "llama-bench"], check=True, env=env, stdout=sys.stderr)
    return binary


def tokens_per_s(command):
    """{'pp512': t/s, 'tg64': t/s} of one turn."""
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = json.loads(out[out.index("["):])
    return {f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}": row["avg_ts"] for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--llama-bench")
    parser.add_argument("--vulkan", action="store_true")
    args = parser.parse_args()

    theirs = args.llama_bench or build_llama_bench(args.vulkan)
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "cchaha-run"], check=True, cwd=ROOT)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    ours = os.path.join(target, "release", "cchaha-run")

    on_card = (["--device", "gpu"], ["-ngl", "99", "-fa", "1"]) if args.vulkan else ([], [])
    print("| model | test | cchaha t/s | llama.cpp t/s | ratio |\n|---|---|---:|---:|---:|")
    for model in args.models:
        common = ["-m", model, "-p", str(args.p), "-n", str(args.n), "-t", str(args.threads), "-r", "1", "-o", "json"]
        seen = {"ours": [], "theirs": []}
        for _ in range(args.rounds):
            seen["ours"].append(tokens_per_s([ours, "bench"] + common + on_card[0]))
            seen["theirs"].append(tokens_per_s([theirs] + common + on_card[1]))
        for test in seen["ours"][0]:
            a, b = (statistics.median(turn[test] for turn in seen[who]) for who in ("ours", "theirs"))
            print(f"| {os.path.basename(model)} | {test} | {a:.1f} | {b:.1f} | {a / b:.2f} |", flush=True)


if __name__ == "__main__":
    main()
