"""Messages name options on the command line and arguments in Python, and only existing ones."""

import ast
import inspect
import re
from dataclasses import fields

import pytest
import torch
import typer.main
from command_line import ROOT, in_process
from torch import nn

import paretoprune as pp
from paretoprune.analysis.mask_ensembles import EnsembleSettings
from paretoprune.search.cli.app import app
from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.deploy.finetune_request import FineTuneRequest
from paretoprune.search.results.selection import SelectionCriteria
from paretoprune.spaces.errors import UserError, as_called, on_command_line
from paretoprune.spaces.policy.loss_curves import CurveSettings

COMMANDS = typer.main.get_command(app).commands
OPTIONS = {
    name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    | {"--help", "--version"}
    for name, command in COMMANDS.items()
}
MESSAGE_CALLS = {"UserError", "TrainingDivergedError", "DiskFullError", "WorkersDiedError", "log",
                 "print", "warn"}  # fmt: skip
FOREIGN = {"--working-dir", "--head", "--nproc-per-node"}  # of ray and torchrun
CALLS = (
    pp.search.search if hasattr(pp.search, "search") else pp.search,
    pp.prune, pp.resume, pp.load, pp.read_run, pp.finetune,
    pp.Result.pick, pp.Picked.export, pp.Shipped.export,
)  # fmt: skip
RECORDS = (
    SearchSettings,
    pp.Policy,
    CurveSettings,
    EnsembleSettings,
    FineTuneRequest,
    SelectionCriteria,
)


def arguments():
    """Every name that a call from Python takes."""
    found = {name for call in CALLS for name in inspect.signature(call).parameters}
    return found | {field.name for record in RECORDS for field in fields(record)}


def texts(tree):
    """The text of every literal except docstrings; values in f-strings are gaps."""
    held = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
            for part in ast.walk(node) if part is not node}  # fmt: skip
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in held or id(node) in docs:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "\0"
                          for p in node.values)  # fmt: skip
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def messages(tree):
    """The text of each error, warning and printed line that a user sees."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
            if name in MESSAGE_CALLS:
                yield from texts(ast.Module([ast.Return(a) for a in node.args], []))


def sources():
    for root in ("search", "analysis", "trainers", "spaces"):
        for path in sorted((ROOT / root).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def test_every_option_that_a_message_names_exists_in_the_command_it_names():
    known, wrong, count = set().union(*OPTIONS.values()) | FOREIGN, [], 0
    for path, tree in sources():
        for text in texts(tree):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text):
                count += 1
                if option not in known:
                    wrong.append(f"{path}: {option}")
            for command, rest in re.findall(r"paretoprune ([a-z]+)([^;,()]*)", text):
                asked = set(re.findall(r"--[a-z][a-z-]*[a-z]", rest.partition(" and ")[0]))
                if command in OPTIONS and not asked <= OPTIONS[command]:
                    wrong.append(f"{path}: paretoprune {command} {asked - OPTIONS[command]}")
    assert not wrong
    assert count > 100


def test_every_argument_that_a_message_recommends_exists_in_python():
    known, wrong = arguments(), []
    for path, tree in sources():
        for text in messages(tree):
            words = re.findall(r"(?<![\w.{=-])([a-z_]+)=(?=[\w'\"(.\0])", text)
            wrong += [f"{path}: {word}=" for word in words if word not in known]
    assert not wrong


def test_every_option_of_a_search_is_an_argument_of_the_same_name_in_python():
    known = arguments()
    only_here = {"--help", "--version", "--resume", "--json"}
    for option in OPTIONS["search"] - only_here:
        shown = as_called(f"write {option}").removeprefix("write ").removesuffix("=False")
        assert shown in known, option


@pytest.mark.parametrize(
    ("written", "in_python"),
    [
        ("--target-flops must be in (0, 1], got 40", "target_flops must be in (0, 1], got 40"),
        ("write --target-flops 0.4, or --steps 10.", "write target_flops=0.4, or steps=10."),
        ("name another --out", "name another out"),
        ("take --policy gradually-global", "take policy='gradually-global'"),
        ("add --plugin /a/own.py, unchanged", "add plugin='/a/own.py', unchanged"),
        ("--weights FILE or --no-screening", "weights=FILE or screening=False"),
        ("--spread 0.2,0.8 is reached", "spread=(0.2, 0.8) is reached"),
        ("--out must end in .pt2 for --to torch", "out must end in .pt2 for to='torch'"),
        ("go on with --resume runs/a", "go on with paretoprune.resume('runs/a')"),
        ("use paretoprune search --resume runs/a", "use paretoprune.resume('runs/a')"),
        ("use paretoprune train --learning-rate 0.01 and pass its --weights",
         "use paretoprune train --learning-rate 0.01 and pass its weights"),
        ("with ray start --head, or leave --address out",
         "with ray start --head, or leave address out"),
        ("got /data/my--set and '--odd'", "got /data/my--set and '--odd'"),
    ],
)  # fmt: skip
def test_a_message_names_arguments_in_python_and_options_on_the_command_line(written, in_python):
    assert str(UserError(written)) == in_python
    assert str(UserError(in_python)) == in_python
    with on_command_line():
        assert str(UserError(written)) == written
    assert str(UserError(written)) == in_python


def digits():
    labels = torch.arange(40) % 10
    return (torch.rand(40, 1, 8, 8), labels), (torch.rand(20, 1, 8, 8), labels[:20])


def network():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


@pytest.mark.parametrize(
    "settings",
    [{"target_flops": 40}, {}, {"target_flops": 0.4, "trials": 0},
     {"target_flops": 0.4, "max_flops": 7}, {"target_flops": 0.4, "min_accuracy": 90.0},
     {"target_flops": 0.4, "weights": "/no/such/file"}, {"target_flops": 0.4, "plugin": "no.py"},
     {"target_flops": 0.4, "sampler": "nsga"}, {"target_flops": 0.4, "out": "/dev/null/run"},
     {"target_flops": 0.4, "gpus_per_trial": 1.5}, {"target_flops": 0.4, "epochs": -1}],
)  # fmt: skip
def test_a_refusal_in_python_names_no_option(settings):
    with pytest.raises(pp.UserError) as error:
        pp.search("digits-resnet", "digits", **settings)
    assert "--" not in str(error.value)
    assert not settings or list(settings)[-1] in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"trials": 3}, "prune has no setting 'trials'"),
     ({"sampler": "gp"}, "prune has no setting 'sampler'"),
     ({"weights": __file__}, "weights must be left out if the model is an object"),
     ({"policy": 3}, "policy must be a name or a Policy, got 3"),
     ({"min_accuracy": 0.5}, "add steps=10, or use policy='gradually-global'"),
     ({"target_flops": 0.0001}, "target_flops must be at least")],
)  # fmt: skip
def test_prune_in_python_refuses_settings_that_it_does_not_use(settings, words, tmp_path):
    asked = {"policy": "taylor-by-price", "target_flops": 0.5, **settings}
    with pytest.raises(pp.UserError, match=re.escape(words)):
        pp.prune(network(), digits(), out=tmp_path / "a" / "out", quiet=True, **asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"batch_size": 64.5}, "batch_size must be a whole number, got 64.5"),
     ({"seed": "1"}, "seed must be a whole number, got '1'"),
     ({"model": "fc"}, "model must be the dense network itself, got 'fc'")],
)  # fmt: skip
def test_finetune_in_python_refuses_arguments_of_the_wrong_type(settings, words):
    with pytest.raises(pp.UserError, match=re.escape(words)):
        pp.finetune("nowhere", digits(), **settings)


def test_an_option_that_is_given_twice_is_refused(capsys):
    words = ("inspect", "--model", "digits-resnet", "--classes", "10", "--classes", "7")
    code, output = in_process(capsys, *words)
    assert (code, output.out) == (2, "")
    assert output.err == "--classes must be given once, got it 2 times; leave out all but one\n"
