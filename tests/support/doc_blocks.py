"""The code blocks of the documentation, the mark above each, and how they are run.

<!-- run -->                       the block runs as it stands
<!-- run with: search --trials 2; train --epochs 1 -->   with these options added, to be quick
<!-- file: NAME -->                the block is written to a file that later blocks use
<!-- not run: why -->              the block needs what a test has not
"""

import ast
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

from command_line import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.S)


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    mark: str
    kind: str
    text: str

    @property
    def act(self):
        return self.mark.partition(":")[0]

    @property
    def added(self):
        """Options to add, by command."""
        if self.act != "run with":
            return {}
        parts = self.mark.partition(":")[2].split(";")
        return {words[0]: words[1:] for words in map(shlex.split, parts)}

    @property
    def lines(self):
        """The lines of a shell block, continued ones joined, comments away."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line, comments=True) for line in joined if line.strip()]


def readme_commands():
    """The README's commands of the terminal, in their order, without the program's name."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- terminal -->\n((?:    .*\n)+)", text).group(1)
    lines = [shlex.split(line) for line in block.splitlines()]
    assert all(words[0] == "paretoprune" for words in lines)
    return [words[1:] for words in lines]


def pages():
    return sorted(DOCS.rglob("*.md"))


def blocks_of(path):
    page = str(path.relative_to(DOCS))
    found = BLOCK.finditer(path.read_text())
    return [Block(page, m["mark"] or "", m["kind"], m["text"]) for m in found]


def run_blocks(blocks, folder):
    """Run the blocks of a page in the folder; commands that follow each other share a process."""
    commands = []
    for block in blocks:
        if block.act == "file":
            (folder / block.mark.partition(":")[2].strip()).write_text(block.text)
        elif block.act != "not run" and block.kind != "python":
            for words in block.lines:
                assert words[0] == "paretoprune", block
                commands.append(with_options(words[1:], block.added.get(words[1], ())))
        elif block.act != "not run":
            run_commands(commands, folder)
            commands = []
            check(python(quick(block), folder), block)
    run_commands(commands, folder)


def with_options(words, added):
    """The words of a command with these options instead of its own of the same names."""
    names, kept = {word for word in added if word.startswith("--")}, []
    for index, word in enumerate(words):
        is_value = not word.startswith("--") and index > 0 and words[index - 1] in names
        if word not in names and not is_value:
            kept.append(word)
    return [*kept, *added]


COMMANDS = """
import json, sys
from paretoprune.search.cli.app import main

for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words} ended with {end.code}")
"""


def run_commands(commands, folder):
    if commands:
        check(python(COMMANDS, folder, json.dumps(commands)), commands)


def check(done, what):
    assert done.returncode == 0, (what, done.stdout[-2000:], done.stderr[-2000:])


def python(code, folder, *words):
    words = [sys.executable, "-c", code, *words]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=300)


def quick(block):
    """The code, with the added options as arguments of its calls of pp.NAME."""

    class Adding(ast.NodeTransformer):
        def visit_Call(self, node):
            self.generic_visit(node)
            name = ast.unparse(node.func).removeprefix("pp.")
            added = arguments(block.added.get(name, ()))
            kept = [word for word in node.keywords if word.arg not in added]
            node.keywords = kept + [ast.keyword(k, ast.Constant(v)) for k, v in added.items()]
            return node

    return ast.unparse(ast.fix_missing_locations(Adding().visit(ast.parse(block.text))))


def arguments(words):
    """Options as keyword arguments: --trials 2 is trials=2, --no-screening is screening=False."""
    found, words = {}, list(words)
    while words:
        name = words.pop(0).removeprefix("--").replace("-", "_")
        if name.startswith("no_"):
            found[name.removeprefix("no_")] = False
        else:
            found[name] = value_of(words.pop(0))
    return found


def value_of(word):
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
