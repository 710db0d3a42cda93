"""Names of the forms of a network's outputs; separate from outputs.py to import without torch."""

SCORES, PROBABILITIES = "scores", "probabilities"
CHOICES = (SCORES, PROBABILITIES)  # values of --outputs
SOFTMAX, SIGMOID = "softmax", "sigmoid"  # the two forms of probabilities
FORMS = (SCORES, SOFTMAX, SIGMOID)
WHOLE = "outputs"  # path of an output that is a single tensor
