"""The forms of a network's outputs, by name. Imports nothing, so that settings may import it."""

SCORES, PROBABILITIES = "scores", "probabilities"
CHOICES = (SCORES, PROBABILITIES)  # of --outputs
SOFTMAX, SIGMOID = "softmax", "sigmoid"  # the two forms of probabilities
FORMS = (SCORES, SOFTMAX, SIGMOID)
WHOLE = "outputs"  # the path of an output that is a single tensor
