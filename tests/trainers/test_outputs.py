"""The class scores are read from the one element that fits, in the form that it has."""

import json
from collections import namedtuple
from dataclasses import dataclass, replace

import pytest
import torch
from command_line import in_process
from torch import nn
from torch.nn import functional
from torchvision.models import GoogLeNetOutputs, InceptionOutputs

import paretoprune as pp
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.outputs import Outputs, element_of
from paretoprune.spaces.records.recipe import read_recipe
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.metrics.evaluate import as_scores, evaluate
from paretoprune.trainers.models.build import check_model_output
from paretoprune.trainers.models.export import ExportSpec, export_network, random_images
from paretoprune.trainers.models.read_outputs import read_outputs
from paretoprune.trainers.runtime.device import DeviceConfig
from paretoprune.trainers.training.distillation import Teacher

SHAPE, CLASSES = (1, 8, 8), 3
Named = namedtuple("Named", "features logits")


@dataclass
class Answer:
    """An output that torch's pytrees do not know."""

    hidden: torch.Tensor
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class Body(nn.Module):
    """A map that does not count channels, scores, and what `give` makes of both."""

    def __init__(self, give=lambda features, logits: logits, classes=CLASSES):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 8, 3, padding=1), nn.Linear(8, classes)
        self.give = give

    def forward(self, x):
        x = self.second(self.norm(self.conv(x)).relu()).relu()
        return self.give(x.sum(1), self.head(x.mean((2, 3))))


FORMS = {
    "outputs[1]": lambda features, logits: (features, logits),
    "outputs[0]": lambda features, logits: [logits, {"maps": features}],
    "outputs['out']": lambda features, logits: {"maps": features, "out": logits},
    "outputs.logits": Answer,
    "outputs.features[0]": lambda features, logits: Named((logits,), features),
}
PROBABLE = {
    "softmax": lambda features, logits: logits.softmax(1),
    "sigmoid": lambda features, logits: logits.sigmoid(),
}


def body(give=None, seed=3, **more):
    torch.manual_seed(seed)
    return (Body(**more) if give is None else Body(give, **more)).eval()


def split(count, seed, classes=CLASSES):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=rng)
    images = torch.randn(count, *SHAPE, generator=rng) + labels.view(-1, 1, 1, 1)
    return Split(images, labels)


def data(classes=CLASSES):
    parts = (split(96, 0, classes), split(64, 1, classes), split(64, 2, classes))
    return DataSplits("made", *parts, classes, (0.0,), (1.0,), SHAPE)


def triple():
    return tuple((part.images, part.labels) for part in (data().train, data().validation))


def prune(model, out, **more):
    return pp.prune(
        model, triple(), "uniform", out=out, target_flops=0.5, epochs=1, refit=False, **more
    )


@pytest.mark.parametrize("path", FORMS)
def test_the_one_element_that_fits_is_pruned_as_if_it_were_returned_alone(path, tmp_path, capsys):
    plain = prune(body(), tmp_path / "plain")
    assert "using" not in capsys.readouterr().out
    picked = prune(body(FORMS[path]), tmp_path / "several")
    assert f"using {path}\n" in capsys.readouterr().out
    assert picked.accuracy == plain.accuracy
    assert picked.widths == plain.widths
    assert picked.evaluation.loss == pytest.approx(plain.evaluation.loss, rel=1e-5)
    recipe = read_recipe(tmp_path / "several" / "recipe.json")
    assert recipe.source.element == path
    name = path.replace("outputs", "model(images)", 1)
    assert f"scores = {name}  #" in (tmp_path / "several" / "README.md").read_text()
    images = torch.randn(4, *SHAPE)
    found = element_of(picked.model(images), CLASSES).tensor
    assert torch.allclose(found, plain.model(images), atol=1e-5)


def test_ambiguous_outputs_are_refused_with_both_elements_named(tmp_path):
    class Faces(Body):
        def __init__(self):
            super().__init__(classes=6)

        def forward(self, x):
            out = super().forward(x)
            return out[:, :4], out[:, 4:].softmax(1)

    two = tuple((images, labels % 2) for images, labels in triple())
    with pytest.raises(pp.UserError) as caught:
        pp.prune(Faces().eval(), two, "uniform", out=tmp_path / "x", target_flops=0.5)
    assert str(caught.value) == (
        "model 'Faces' must return one float tensor [N, 2 or more], got 2 that fit: "
        "outputs[0] [2, 4], outputs[1] [2, 2]; return the class scores alone"
    )


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda f, z: z[:, :, None, None], r"got outputs \[2, 3, 1, 1\]; .*flatten\(1\)"),
        (lambda f, z: z.argmax(1), r"got outputs \[2\] of torch.int64; .*before argmax"),
        (lambda f, z: (f, z[:, :2]), r"outputs\[1\] \[2, 2\]; average|flatten"),
        (lambda f, z: {"a": z, "b": z * 2}, r"2 that fit: outputs\['a'\] .* outputs\['b'\]"),
        (lambda f, z: None, r"got NoneType without a tensor; set its number"),
        (lambda f, z: z[:1], r"one row of scores per image, got outputs \[1, 3\] for 2 images"),
    ],
)
def test_an_output_without_one_tensor_of_scores_is_refused(give, words):
    with pytest.raises(pp.UserError, match=words) as caught:
        check_model_output(body(give), "net", CLASSES, SHAPE)
    assert "\n" not in str(caught.value)


def test_scores_that_are_ambiguous_in_training_mode_are_refused():
    class Deep(Body):
        def forward(self, x):
            out = super().forward(x)
            return (out, 2 * out) if self.training else out

    with pytest.raises(pp.UserError, match="a network in training mode must return one float"):
        read_outputs(Deep(), data(), "scores")


def test_auxiliary_scores_of_torchvision_are_ignored():
    main, other = torch.zeros(2, 5), torch.ones(2, 5)
    for output in (GoogLeNetOutputs(main, other, other), InceptionOutputs(main, other)):
        assert element_of(output, 5).tensor is main


def test_examining_the_outputs_changes_neither_the_network_nor_the_random_state():
    model = nn.Sequential(nn.Dropout(0.5), body(PROBABLE["sigmoid"])).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    read_outputs(model, data(), "scores")
    assert model.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_class_scores_in_a_dataclass_are_never_cut():
    channel_map = trace_channel_map(body(Answer), SHAPE)
    assert channel_map.atoms == 6
    (head,) = (layer for layer in channel_map.layers if layer.name == "head")
    assert (head.out_atoms < 0).all()


@pytest.mark.parametrize("form", PROBABLE)
def test_probabilities_give_the_loss_and_accuracy_of_their_scores(form):
    plain, probable = body(), body(PROBABLE[form])
    read, notes = read_outputs(probable, data(), "probabilities")
    assert (read.outputs, notes) == (Outputs(form), ())
    want = evaluate(plain, data().test, data())
    found = evaluate(probable, read.test, read)
    assert found.accuracy == want.accuracy
    assert found.loss == pytest.approx(want.loss, rel=1e-5)
    images = torch.randn(5, *SHAPE)
    taught = Teacher(probable, DeviceConfig())(images, data=read)
    wanted = plain(images)
    assert torch.allclose(taught.softmax(1), wanted.softmax(1), atol=1e-5)
    rounded = evaluate(probable, read.test, read, machine=DeviceConfig(bf16=True))
    assert rounded.loss == pytest.approx(want.loss, rel=1e-5)  # bf16 would round to 0 and 1


@pytest.mark.parametrize("form", PROBABLE)
def test_the_gradient_through_probabilities_is_that_of_the_scores(form):
    logits = torch.randn(7, 4, dtype=torch.float32).requires_grad_()
    labels = torch.randint(0, 4, (7,))
    values = PROBABLE[form](None, logits)
    scores = as_scores(values, form)
    losses = [functional.cross_entropy(z, labels) for z in (scores, logits)]
    (found,), (want,) = (torch.autograd.grad(z, logits, retain_graph=True) for z in losses)
    assert torch.allclose(found, want, atol=1e-6)


def test_probabilities_of_0_and_1_have_finite_scores():
    values = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    for form in PROBABLE:
        assert as_scores(values, form).isfinite().all()
        assert as_scores(values, form).argmax(1).tolist() == [1, 0]


@pytest.mark.parametrize("form", PROBABLE)
def test_probabilities_used_as_scores_raise_a_note_of_one_line(form):
    read, (note,) = read_outputs(body(PROBABLE[form]), data(), "scores")
    assert read.outputs == Outputs()
    assert note == (
        f"the outputs are probabilities ({form}), but cross-entropy expects unnormalised scores: "
        f"remove the {form}, or pass --outputs probabilities"
    )


def test_scores_are_not_detected_as_probabilities():
    seen = 0
    for seed in range(8):
        for give in (
            lambda f, z: z,
            lambda f, z: z.relu(),
            lambda f, z: z * 0,
            lambda f, z: 0.01 * z + 0.5,  # in [0, 1] for every image
        ):
            seen += 1
            assert read_outputs(body(give, seed), data(), "scores")[1] == ()
    assert seen == 32


def test_requested_probabilities_outside_0_to_1_are_refused():
    with pytest.raises(pp.UserError, match=r"needs outputs in \[0, 1\], got -.* leave outputs"):
        read_outputs(body(), data(), "probabilities")


def test_a_picked_network_keeps_the_form_and_a_fine_tune_uses_it(tmp_path, capsys):
    dense = body(PROBABLE["sigmoid"])
    plain = prune(body(), tmp_path / "plain")
    picked = prune(dense, tmp_path / "p", outputs="probabilities")
    assert picked.accuracy == plain.accuracy
    assert picked.evaluation.loss == pytest.approx(plain.evaluation.loss, rel=1e-3)
    assert read_recipe(tmp_path / "p/recipe.json").source.outputs == "sigmoid"
    assert "probabilities = model(images)  #" in (tmp_path / "p/README.md").read_text()
    capsys.readouterr()
    tuned = [
        pp.finetune(tmp_path / name, triple(), epochs=2, model=model)
        for name, model in (("plain", body()), ("p", dense))
    ]
    assert "unnormalised" not in capsys.readouterr().out
    assert tuned[1].recipe.source.outputs == "sigmoid"
    assert tuned[1].figures.loss == pytest.approx(tuned[0].figures.loss, rel=1e-2)
    path = tuned[1].export(tmp_path / "p.pt2")
    images = torch.rand(2, *SHAPE)
    exported = torch.export.load(path).module()(images)
    assert torch.allclose(exported, tuned[1].model(images), atol=1e-5)  # probabilities still


def test_an_exported_file_returns_only_the_class_scores(tmp_path):
    model = body(FORMS["outputs.logits"])
    exported = export_network(model, tmp_path / "x.pt2", ExportSpec("torch", SHAPE, classes=3))
    assert exported.element == "outputs.logits"
    images = random_images(4, SHAPE)
    assert torch.allclose(exported.runner(images), model(images).logits, atol=1e-5)


def test_a_recipe_of_unknown_outputs_is_refused(tmp_path):
    prune(body(), tmp_path / "p")
    path = tmp_path / "p/recipe.json"
    values = json.loads(path.read_text())
    values["source"]["outputs"] = "odds"
    path.write_text(json.dumps(values))
    with pytest.raises(pp.UserError, match="outputs of scores, softmax, sigmoid, got 'odds'"):
        read_recipe(path)
    del values["source"]["outputs"], values["source"]["element"]  # as before there was a choice
    path.write_text(json.dumps(values))
    assert read_recipe(path).source.outputs == "scores"


@pytest.mark.parametrize(
    "words",
    [
        ("search", "--target-flops", 0.5),
        ("prune", "--policy", "uniform", "--target-flops", 0.5, "--out", "x"),
        ("train", "--model", "fc", "--data", "digits", "--out", "x.safetensors"),
        ("sensitivity", "--model", "fc", "--data", "digits"),
        ("finetune", "x", "--data", "digits"),
    ],
)
def test_unknown_outputs_are_refused_by_every_command(words, capsys):
    code, printed = in_process(capsys, *words, "--outputs", "odds")
    assert code == 2
    assert "--outputs must be one of scores, probabilities, got 'odds'" in printed.err


def test_measurements_of_another_output_form_are_not_reused(tmp_path):
    from paretoprune.analysis.scores.measure import measurement_key

    model = body(PROBABLE["softmax"])
    channel_map = trace_channel_map(model, SHAPE)
    keys = {
        measurement_key(model, channel_map, replace(data(), outputs=outputs), data().train, 0)
        for outputs in (Outputs(), Outputs("softmax"), Outputs("sigmoid"))
    }
    assert len(keys) == 3
