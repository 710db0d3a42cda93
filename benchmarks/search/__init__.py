"""The proof: our search beside what people use, on one network, at one price.

    python -m benchmarks.search wall   [--minutes 20] [--seeds 0,1,2] [--contenders ours,fastnas]
    python -m benchmarks.search images [--images 1200000]
    python -m benchmarks.search plot   [--out docs/figures/search.svg]

ResNet-20 on CIFAR-10 (JPEG), from the clean baseline that lies in `benchmarks/networks`, or the
network of another baseline (`--network resnet56-brief`). Each contender has the same budget: of
wall time on the same cores, or of images. Each of its candidates has the same fine-tune (epochs,
batches, schedule, distillation from the dense network). Validation chooses each front; the test
split is read once, for its points. The peers and the presets take the default learning rate and
weight of distillation; ours and random sample the two, as they sample everything else.

A cell is one contender and seed. Run the same command again and it fills the cells that are still
missing. The peers need `pip install .[benchmark]`, NNI an environment of its own with `nni==3.0`
(it wants an older filelock); without them their cells stay missing.
"""
