#!/usr/bin/env python3
"""Fetches real source files in eight languages for the tests of code structure, by package and sha256.

usage: fetch.py DIR        DIR/code/LANGUAGE/* is made; what is complete stays
"""

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path

NPM = "https://registry.npmjs.org/"
CRATES = "https://static.crates.io/crates/"
PIP = "pip:"

# URL, sha256, and which files are of which language.
PACKAGES = [
    (NPM + "eslint/-/eslint-9.39.1.tgz", "470c0b8b46a7dd5b0bdc63bf6b4c8793e8521c5350491a9522fa5c9c73bf9218", [("javascript", r"/lib/.*\.js$")]),
    (NPM + "rxjs/-/rxjs-7.8.2.tgz", "2312f8ffd9726ffd7bd53ea12c5f13663d09a3dc3326f448c70b88f5ef6fac82", [("typescript", r"/src/(?!.*\.d\.ts).*\.ts$")]),
    (NPM + "@capacitor/android/-/android-7.4.4.tgz", "73aff14ace0bc212adb101ce49c2fa58ce8743f836b0dbe5e5a433a060c149e1", [("java", r"\.java$")]),
    (CRATES + "ripgrep/ripgrep-14.1.1.crate", "f77b8032dc584527975f34aa5a897d0ef5a785573fda778771a614ff9da501d9", [("rust", r"\.rs$")]),
    (CRATES + "libgit2-sys/libgit2-sys-0.18.2+1.9.1.crate", "1c42fe03df2bd3c53a3a9c7317ad91d80c81cd1fb0caec8d7cc4cd2bfa10c222", [("c", r"/src/libgit2/.*\.c$")]),
    (CRATES + "boring-sys/boring-sys-4.15.0.crate", "3cf7466056d7ca35a356fbc27c89eb2f1493fb2e61c24c5f9f0277e8f402dc9e", [
        ("go", r"boringssl-fips/.*\.go$"), ("cpp", r"boringssl-fips/ssl/[^/]*\.cc$")]),
    (PIP + "networkx==3.5", "0030d386a9a06dee3565298b4a734b68589749a544acbb6c412dc9e2489ec6ec", [("python", r"networkx/(algorithms|classes)/[^/]*\.py$")]),
]


def from_pip(requirement):
    """The wheel of a package."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        if subprocess.run([*command, requirement]).returncode != 0:
            raise OSError("pip failed")
        return next(Path(folder).glob("*.whl")).read_bytes()


def download(url, digest):
    for pause in (1, 4, 15):
        try:
            if url.startswith(PIP):
                data = from_pip(url.removeprefix(PIP))
            else:
                with urllib.request.urlopen(url, timeout=60) as response:
                    data = response.read()
            break
        except OSError as error:
            print(f"{url}: {error}; once more in {pause} s", file=sys.stderr)
            time.sleep(pause)
    else:
        raise SystemExit(f"cannot fetch {url}")
    if hashlib.sha256(data).hexdigest() != digest:
        raise SystemExit(f"{url}: has another sha256 than expected, {digest}")
    return data


def members(data):
    """Name and bytes of every file of an archive."""
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
    else:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.isfile():
                    yield member.name, archive.extractfile(member).read()


def main():
    root = Path(sys.argv[1]) / "code"
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    complete = root / "complete"
    if complete.is_file() and complete.read_text() == recipe:
        return
    for url, digest, kinds in PACKAGES:
        n = 0
        for name, data in members(download(url, digest)):
            for language, pattern in kinds:
                if re.search(pattern, name):
                    folder = root / language
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / name.split("/", 1)[1].replace("/", "__")).write_bytes(data)
                    n += 1
        if n == 0:
            raise SystemExit(f"{url} holds none of the expected files")
    complete.write_text(recipe)


main()
