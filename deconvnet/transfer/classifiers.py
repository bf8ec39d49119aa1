"""Classifiers upon frozen features: a linear support vector machine for each class against the others, or a softmax."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ..errors import UsageError
from ..settings import Part

Kind = Literal["svm", "softmax"]
Array = np.ndarray[Any, Any]


class Penalty(Part):
    """How strongly the training images count against the size of the weights, scikit-learn's C.

    The paper does not say its own. Features come in with length 1, so that one value suits all layers and networks.
    """

    svm: Annotated[float, Field(gt=0, le=1e6, description="C of the support vector machines")] = 10.0
    softmax: Annotated[float, Field(gt=0, le=1e6, description="C of the softmax")] = 100.0


def scores(kind: Kind, train: Array, labels: Array, test: Array, penalty: Penalty) -> Array:
    """Of the test features (n, d) a score for each class (n, classes): which class is likelier, no probabilities.

    ``train`` (m, d), ``labels`` (m,) from 0 to classes − 1, all of them there. Raises UsageError without scikit-learn.
    """
    linear = _scikit_learn()
    train, test = _reduced(normalised(train), normalised(test))
    if kind == "svm":
        machine = linear.svm.LinearSVC(C=penalty.svm, random_state=0)
        found = machine.fit(train, labels).decision_function(test)
    else:
        softmax = linear.linear_model.LogisticRegression(C=penalty.softmax, max_iter=1000)
        found = softmax.fit(train, labels).decision_function(test)
    return found if found.ndim == 2 else np.stack([-found, found], 1)  # two classes have one score between them


def one_against_all(train: Array, truth: Array, test: Array, kind: Kind, penalty: Penalty) -> Array:
    """Of the test features (n, d) a score (n,) for one class against everything else; ``truth`` (m,) is 0 or 1."""
    return scores(kind, train, truth.astype(int), test, penalty)[:, 1]


def normalised(values: Array) -> Array:
    """Features (n, d) with length 1 each, float64; what is all zero stays so."""
    values = values.astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


def _reduced(train: Array, test: Array) -> tuple[Array, Array]:
    """The same features in fewer dimensions: as many as there are training images, with all inner products kept.

    A linear classifier sees nothing else of them: its weights lie in the span of the training images. With K = LLᵀ the
    training images' inner products, L are their coordinates, and L⁻¹k those of another image. Early layers have more
    values than a class has images by far, so that this is what makes them affordable.
    """
    if train.shape[1] <= len(train):
        return train, test
    from scipy.linalg import solve_triangular

    inner = train @ train.T                                                      # (m, m)
    inner[np.diag_indices_from(inner)] += 1e-9  # so that images that are there twice do not stop it
    lower = np.linalg.cholesky(inner)                                            # (m, m)
    return lower, solve_triangular(lower, train @ test.T, lower=True).T


def _scikit_learn() -> Any:
    try:
        import sklearn.linear_model
        import sklearn.svm
    except ImportError as error:
        raise UsageError("classifiers need the package scikit-learn: pip install 'deconvnet[transfer]'") from error
    return sklearn
