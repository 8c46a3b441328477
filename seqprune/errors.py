"""One family of exceptions.

Every message says what was seen, the likely cause, and what to do, on one line. The command line turns
an :class:`InputError` into exit code 2 and every other :class:`SeqPruneError`, a :class:`LostError` too, into exit code
1; anything else is a bug and surfaces with its traceback.
"""


class SeqPruneError(Exception):
    """Base of every error that seqprune raises on purpose."""


class InputError(SeqPruneError):
    """What the caller gave cannot be used: weights, data, names or numbers."""


class ModelError(InputError):
    """The model cannot be loaded or run, or its channel counts already disagree."""


class UntrustedError(ModelError):
    """A checkpoint holds what may run code when it is loaded."""


class DataError(InputError):
    """The labelled images cannot be used."""


class UnlabelledError(DataError):
    """There is no labelled object where one is needed, or no images to measure on."""


class LostError(DataError):
    """Images that were there when a run began are gone: the work failed (exit code 1), and what was found stays."""


class TargetError(InputError):
    """A target cannot be met by what may leave: with other moves, or on smaller images, it may be."""


class PlanError(InputError):
    """A keep set is impossible, or a plan belongs to another model."""


class LayerSkipped(SeqPruneError):
    """One layer cannot be decided; the sequential run records the reason and goes on."""


class VerificationError(SeqPruneError):
    """The compact model does not compute what the masked model computes."""


class TrainingError(SeqPruneError):
    """Fine-tuning failed, or did not keep the shape or the mask it was given.

    Attributes:
        result: what was done before it, a ``PruneResult``, where there is any.
    """

    result: object = None


class MeasurementError(SeqPruneError):
    """What was pruned could not be measured.

    Attributes:
        result: what was done before it, a ``PruneResult``, where there is any.
    """

    result: object = None


class ChangedError(MeasurementError):
    """The images that accuracy is measured on changed while a run went on."""
