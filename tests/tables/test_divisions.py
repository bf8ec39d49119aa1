"""Divisions of images into those to learn from and those to measure on, and what is measured on them."""

from types import SimpleNamespace

import numpy as np
import pytest

from deconvnet.errors import UsageError
from deconvnet.transfer import classifiers
from deconvnet.transfer.classifiers import Penalty, normalised, one_against_all, scores
from deconvnet.transfer.protocol import Accuracy, average_precision, mean_of_classes, measure
from deconvnet.transfer.splits import Fold, Splitting, check, folds


def images(*counts):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return SimpleNamespace(labels=labels, files=[f"{n:04}.png" for n in range(len(labels))],
                           classes=[f"class {n}" for n in range(len(counts))])


def per_class(numbers, labels):
    return np.bincount([labels[number] for number in numbers]).tolist()


def test_folds_are_disjoint_of_every_class_as_many_and_at_most_fifty_to_measure():
    some = images(100, 40, 31)
    for fold in folds(some, 30, Splitting()):
        assert not set(fold.train) & set(fold.test)
        assert per_class(fold.train, some.labels) == [30, 30, 30]
        assert per_class(fold.test, some.labels) == [50, 10, 1]


def test_folds_differ_from_one_another_and_with_the_seed_and_are_the_same_again():
    some = images(40, 40)
    first, second = folds(some, 10, Splitting(folds=2)), folds(some, 10, Splitting(folds=2, seed=1))
    assert first == folds(some, 10, Splitting(folds=2))
    assert len({tuple(fold.train) for fold in first + second}) == 4


def test_fewer_images_are_a_part_of_more():
    some = images(40, 40)
    assert set(folds(some, 5, Splitting())[3].train) < set(folds(some, 10, Splitting())[3].train)


def test_what_the_network_learned_from_is_never_measured_on():
    some = images(40, 40)
    learned = {*range(0, 30), *range(45, 75)}
    for fold in folds(some, 15, Splitting(), learned=learned):
        assert set(fold.train) < learned and set(fold.test) == set(range(80)) - learned


def test_unreadable_and_unlabelled_images_are_in_no_fold():
    some = images(10, 10)
    some.labels[3] = -1
    for fold in folds(some, 5, Splitting(), unreadable={4}):
        assert not {3, 4} & {*fold.train, *fold.test}


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(UsageError, match=r"30 images a class to learn from.*class 1 \(30\), class 2 \(3\)\. Ask for"):
        check(images(40, 30, 3), [15, 30])
    with pytest.raises(UsageError, match=r"class 1 \(4 that the network learned from, 1 others\)"):
        check(images(10, 5), [5], learned={0, 1, 2, 3, 4, 10, 11, 12, 13})
    with pytest.raises(UsageError, match="two classes"):
        check(images(10), [5])


def test_accuracy_is_the_mean_of_the_classes():
    true = np.array([0, 0, 0, 0, 1, 1, 2])
    said = np.array([0, 0, 0, 1, 1, 0, 2])
    assert mean_of_classes(said, true) == pytest.approx(100 * (3 / 4 + 1 / 2 + 1) / 3)


def test_folds_are_averaged_with_the_deviation_of_a_sample():
    accuracy = Accuracy((40.0, 50.0, 60.0))
    assert (accuracy.mean, accuracy.deviation, str(accuracy)) == (50, 10, "50.0 ± 10.0")
    assert str(Accuracy((40.0,))) == "40.0"


def slow_average_precision(found, true):
    """At each recall that is reached, the best precision at it or beyond; the area below is their mean."""
    order = sorted(range(len(found)), key=lambda n: -found[n])
    points = [(sum(true[n] for n in order[:k]) / sum(true), sum(true[n] for n in order[:k]) / k)
              for k in range(1, len(order) + 1)]
    recalls = sorted({recall for recall, _ in points if recall > 0})
    return 100 * sum(max(p for r, p in points if r >= recall) for recall in recalls) / len(recalls)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_area_under_precision_over_recall(seed):
    rng = np.random.default_rng(seed)
    found, true = rng.normal(size=30), rng.random(30) < 0.3
    assert average_precision(found, true) == pytest.approx(slow_average_precision(found, true.tolist()))


def test_average_precision_by_hand():
    assert average_precision(np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 0])) == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert average_precision(np.array([4.0, 3]), np.array([1, 0])) == 100
    assert average_precision(np.array([4.0, 3]), np.array([0, 0])) == 0


def clouds(n, d, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return rng.random((n, d)) + 2 * np.eye(3, d)[labels], labels


@pytest.mark.parametrize("kind", ["svm", "softmax"])
@pytest.mark.parametrize("d", [5, 200])  # fewer values than images, and more: inner products in their place
def test_scores_are_those_of_scikit_learn_on_all_values(kind, d):
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    values, labels = clouds(60, d)
    plain = LinearSVC(C=10, random_state=0) if kind == "svm" else LogisticRegression(C=100, max_iter=1000)
    direct = plain.fit(normalised(values[:40]), labels[:40]).decision_function(normalised(values[40:]))
    ours = scores(kind, values[:40], labels[:40], values[40:], Penalty())
    np.testing.assert_allclose(ours, direct, atol=0.02 if kind == "svm" else 0.1)  # a softmax stops sooner
    assert (ours.argmax(1) == direct.argmax(1)).all()


def test_images_that_are_there_twice_and_empty_features_do_no_harm():
    values, labels = clouds(20, 50)
    values[1], values[4] = values[0], 0
    assert np.isfinite(scores("svm", values, labels, values, Penalty())).all()


@pytest.mark.parametrize("kind", ["svm", "softmax"])
def test_two_classes_have_a_score_each(kind):
    values, labels = clouds(30, 4)
    found = scores(kind, values, labels % 2, values, Penalty())
    assert found.shape == (30, 2)
    np.testing.assert_array_equal(found[:, 1], one_against_all(values, labels % 2, values, kind, Penalty()))


def test_measure_says_the_classes_own_numbers_and_counts_equal_folds_once(monkeypatch):
    values, labels = clouds(30, 4)
    calls = []
    real = classifiers.scores
    monkeypatch.setattr("deconvnet.transfer.protocol.scores", lambda *args: calls.append(1) or real(*args))
    fold = Fold(list(range(20)), list(range(20, 30)))
    found = measure(values, [7 - 2 * label for label in labels], [fold, fold], "svm", Penalty())
    assert found.folds == (100,) and len(calls) == 1 and found.values == 4


def test_without_scikit_learn_there_is_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.svm", None)
    with pytest.raises(UsageError, match=r"pip install 'deconvnet\[transfer\]'"):
        scores("svm", *clouds(9, 2), clouds(9, 2)[0], Penalty())
