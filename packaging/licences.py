#!/usr/bin/env python3
"""Prints the licences of everything that is linked into tidegate: who, under what, and every text once.

Read from Cargo.lock through `cargo metadata`, and from the licence files of the crates themselves. Crates that only run while the
binary is built (build scripts, macros and what these need) are not in it. The same commit gives the same bytes.
"""

import json
import os
import re
import subprocess
import sys

NAMES = re.compile(r"(licen[cs]es?|copying|copyright|notice|unlicense)([-._].*)?$", re.IGNORECASE)
# What no crate's licence file tells.
BY_HAND = """\
Rust standard library       MIT OR Apache-2.0, the Rust project developers (https://rust-lang.org)
SQLite                      public domain (https://sqlite.org/copyright.html), in crate libsqlite3-sys
zstd                        BSD-3-Clause (also offered under the GPL-2.0, which is not used here), in crate zstd-sys
Public Suffix List          MPL-2.0, Mozilla Foundation and contributors; its source: https://publicsuffix.org/list/, in crate psl
"""


def main():
    crates = linked_crates()
    texts = {}  # text -> number, in order of first appearance
    lines = []
    for crate in crates:
        found = [texts.setdefault(text, len(texts) + 1) for text in licence_texts(crate)]
        if not found:
            sys.exit(f"packaging/licences.py: {crate['name']} has no licence file: read its licence and name it in BY_HAND")
        numbers = ", ".join(str(number) for number in sorted(set(found)))
        said = crate["license"] or "see text"
        lines.append(f"{crate['name'] + ' ' + crate['version']:<27} {said}; {'text' if len(set(found)) == 1 else 'texts'} {numbers}")
    print("Third-party software in tidegate\n")
    print("The binary /usr/bin/tidegate is linked with the crates below and the C libraries in them. Where licences are offered")
    print("with OR, each of them may be chosen. The texts follow, each once.\n")
    print(BY_HAND + "\n".join(lines))
    for text, number in texts.items():
        print(f"\n{'=' * 100}\nText {number}\n{'=' * 100}\n\n{text}")


def linked_crates():
    host = re.search(r"^host: (.*)$", output("rustc", "-vV"), re.MULTILINE).group(1)
    metadata = json.loads(output("cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", host))
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    root = metadata["resolve"]["root"]
    linked, open_ids = set(), [root]
    while open_ids:
        for dependency in nodes[open_ids.pop()]["deps"]:
            of_the_program = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            package = packages[dependency["pkg"]]
            is_macro = any("proc-macro" in target["kind"] for target in package["targets"])
            if of_the_program and not is_macro and package["id"] not in linked:
                linked.add(package["id"])
                open_ids.append(package["id"])
    return sorted((packages[id] for id in linked - {root}), key=lambda package: (package["name"], package["version"]))


def licence_texts(crate):
    root = os.path.dirname(crate["manifest_path"])
    folders = [root]
    # The C libraries that crates bring along have theirs one folder below.
    if crate["name"].endswith("-sys"):
        folders += sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if NAMES.match(name) and os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    lines = [line.rstrip() for line in file.read().splitlines()]
                yield "\n".join(lines).strip("\n")


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
