"""Splits by lattice, epochs that do not depend on the number of workers, and a network that learns."""

import copy
import time

import numpy as np
import pytest
import torch

from hamscope.config import Instrument, Train
from hamscope.data.symmetry import majority_up, reduce
from hamscope.errors import UserError
from hamscope.learn.network import PaperNet
from hamscope.learn.training import Source, choose_precision, evaluate, learning_rate, shares, split, train_epoch


@pytest.fixture
def columns():
    """Three classes of 20, 11 and 2 lattices with 13, 1 and 5 images each, shuffled."""
    model = np.repeat([1, 3, 4], [20 * 13, 11, 10])
    lattice = np.concatenate([np.repeat(np.arange(20), 13), np.arange(11), np.repeat([4, 9], 5)])
    order = np.random.default_rng(0).permutation(len(model))
    return {"model": model[order], "lattice": lattice[order]}


def test_no_lattice_is_on_both_sides(columns):
    """Every image is on one side, every lattice of a class wholly on one, a fifth of the lattices held out.

    Seen to fail with a split over images (the permutation taken of images in place of lattices), with one lattice too
    many held out, and with lattices of all classes that have the number of one held out.
    """
    train, validation = split(columns, 0.2, seed=1)
    assert sorted([*train, *validation]) == list(range(len(columns["model"])))
    sides = [set(zip(columns["model"][side], columns["lattice"][side])) for side in (train, validation)]
    assert not sides[0] & sides[1]
    held_out = {model: sum(m == model for m, _ in sides[1]) for model in (1, 3, 4)}
    assert held_out == {1: 4, 3: 2, 4: 1}
    assert not np.array_equal(split(columns, 0.2, seed=2)[1], validation)


def test_a_class_of_one_lattice_is_refused():
    with pytest.raises(UserError, match="RF-2D: one lattice"):
        split({"model": np.array([2, 2, 2]), "lattice": np.zeros(3, int)}, 0.2, 1)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_workers_share_every_global_batch(world):
    """Put together batch by batch, the workers' shares are the one-worker epoch; every image comes once.

    Seen to fail with a permutation of each worker's own, and with the same one for every epoch.
    """
    alone = shares(103, 10, 7, 2, 0, 1)
    workers = [shares(103, 10, 7, 2, rank, world) for rank in range(world)]
    for number, (batch, size) in enumerate(alone):
        together = np.concatenate([worker[number][0] for worker in workers])
        np.testing.assert_array_equal(together, batch)
        assert all(worker[number][1] == size == len(batch) for worker in workers)
    assert sorted(np.concatenate([batch for batch, _ in alone])) == list(range(103))
    assert not np.array_equal(shares(103, 10, 7, 3, 0, 1)[0][0], alone[0][0])


def of(images):
    """A source of these images as they are."""
    return lambda numbers, epoch: (images[numbers], None)


def test_the_mean_gradient_of_the_workers_is_that_of_one():
    """One batch of 10 on one worker and on three: the mean of the three gradients is the one, to rounding.

    Seen to fail with the loss divided by the worker's own share instead of by the global batch (10 images on 3
    workers), with the number of workers left out, and with dropout keyed by the place in the worker's share.
    """
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 2, (10, 16, 16), np.uint8), random.integers(0, 7, 10)
    start = PaperNet(16, filters=(4, 4), hidden=16)

    def gradient(rank: int, world: int) -> torch.Tensor:
        network = copy.deepcopy(start)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        train_epoch(
            network,
            optimizer,
            of(images),
            np.arange(10),
            labels,
            seed=1,
            epoch=0,
            batch_size=10,
            rank=rank,
            world=world,
        )
        return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])

    mean = torch.stack([gradient(rank, 3) for rank in range(3)]).mean(0)
    assert torch.allclose(mean, gradient(0, 1), atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_learns_what_density_tells(precision):
    """Noise of four densities is told apart on fresh images with 95 % accuracy after 10 epochs, in both precisions.

    Seen to fail with rows and columns of the confusion matrix exchanged.
    """
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 800)
    images = (random.random((800, 20, 20)) < 0.55 + 0.12 * labels[:, None, None]).astype(np.uint8)
    torch.manual_seed(0)
    network = PaperNet(20, filters=(8, 8), hidden=32)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for epoch in range(10):
        sums = train_epoch(
            network, optimizer, of(images), np.arange(600), labels[:600], seed=1, epoch=epoch, batch_size=32,
            precision=precision,
        )  # fmt: skip
    assert sums.images == 600 and sums.correct / sums.images > 0.8 and sums.loss / sums.images < 0.5
    _, confusion = evaluate(network, of(images), np.arange(600, 800), labels[600:])
    assert confusion.sum() == 200 and confusion.trace() / 200 > 0.95
    np.testing.assert_array_equal(confusion.sum(1)[:4], np.bincount(labels[600:], minlength=4))


def test_the_precision_asked_for_is_kept():
    assert choose_precision("float32", "cpu") == "float32"
    assert choose_precision("bfloat16", "cpu") == "bfloat16"
    assert choose_precision("auto", "cpu") in ("float32", "bfloat16")


def test_the_learning_rate_stays_or_falls_in_equal_steps():
    assert [learning_rate(0.8, "constant", epoch, 4) for epoch in (1, 4)] == [0.8, 0.8]
    assert [learning_rate(0.8, "linear", epoch, 4) for epoch in (1, 2, 3, 4)] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def noise_images(count: int = 40) -> np.ndarray:
    return (np.random.default_rng(0).random((count, 20, 20)) < 0.6).astype(np.uint8)


def test_a_source_shows_other_images_in_every_epoch():
    """Through the instrument anew each time, keyed by epoch and number; epoch 0 and any other come again the same.

    Seen to fail with the epoch left out, and with the place in the batch for the number of the image.
    """
    section = Train(seed=4, epochs=1, instrument=Instrument(sharp=0.0, psf_px=(0.5, 2.0), noisy=1.0, noise=(0.2, 0.4)))
    images, numbers = noise_images(), np.array([5, 39, 0, 17])
    source = Source(images, section, "majority")
    shown = {epoch: source(numbers, epoch) for epoch in (0, 1, 2)}
    for epoch, (seen, condition) in shown.items():
        again, known = Source(images, section, "majority")(numbers[::-1], epoch)
        np.testing.assert_array_equal(again[::-1], seen)
        np.testing.assert_array_equal(known[::-1], condition)
        assert condition.shape == (4, 3) and (2 * seen.sum((1, 2), dtype=int) >= 400).all()
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert (shown[a][0] != shown[b][0]).any((1, 2)).all()
    np.testing.assert_array_equal(majority_up(source.seen(numbers, 1)[0]), shown[1][0])


def test_a_source_without_an_instrument_shows_the_images_as_they_are():
    """Reduced they are the same in every epoch; augmented, one of 16 forms in epochs of training, itself in epoch 0.

    All 16 forms come about equally often: chi-square of 16 x 40 draws below 37.7, the 99.9 % point of 15 degrees of
    freedom.  Seen to fail with epoch 0 turned as well, and with one form for all images of an epoch.
    """
    images, numbers = noise_images(), np.arange(40)
    section = Train(seed=4, epochs=1)
    for epoch in (0, 3):
        seen, condition = Source(images, section, "reduced")(numbers, epoch)
        np.testing.assert_array_equal(seen, reduce(images))
        assert condition is None
    source = Source(images, section, "augmented")
    np.testing.assert_array_equal(source(numbers, 0)[0], images)
    counts = np.zeros(16, int)
    for epoch in range(1, 17):
        for image, seen in zip(images, source(numbers, epoch)[0]):
            forms = [m ^ flip for x in (image, image.T) for m in (x, x[::-1], x[:, ::-1], x[::-1, ::-1])
                     for flip in (0, 1)]  # fmt: skip
            [found] = [k for k, form in enumerate(forms) if np.array_equal(form, seen)]
            counts[found] += 1
    assert np.sum((counts - 40) ** 2 / 40) < 37.7


@pytest.mark.parametrize("loaders", [1, 3])
def test_batches_come_in_order_whatever_the_threads(loaders):
    """Threads that finish out of turn change nothing: the weights are those of one thread, bit for bit.

    Seen to fail with the batch taken that is ready first.
    """
    images, labels = noise_images(), np.arange(40) % 7
    asked = []

    def slow(numbers, epoch):
        if loaders > 1:
            time.sleep(0.02 * (numbers[0] % 3))  # out of turn
        asked.append(len(numbers))
        return images[numbers], None

    def trained(source, loaders):
        torch.manual_seed(0)
        network = PaperNet(20, filters=(4, 4), hidden=16)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        sums = train_epoch(network, optimizer, source, np.arange(40), labels, seed=1, epoch=1, batch_size=6,
                           loaders=loaders)  # fmt: skip
        return sums, torch.cat([parameter.flatten() for parameter in network.parameters()])

    sums, weights = trained(slow, loaders)
    expected, plain = trained(of(images), 1)
    assert torch.equal(weights, plain) and sums == expected and sums.images == 40
    assert sorted(asked) == [4, 6, 6, 6, 6, 6, 6]


def test_the_steps_wait_for_a_slow_source_and_say_so():
    """Two batches of a source that takes 0.1 s each: at least that was waited, of the first."""

    def slow(numbers, epoch):
        time.sleep(0.1)
        return noise_images()[numbers], None

    network = PaperNet(20, filters=(4, 4), hidden=16)
    sums = train_epoch(network, torch.optim.SGD(network.parameters(), 0.0), slow, np.arange(12), np.zeros(12, int),
                       seed=1, epoch=1, batch_size=6)  # fmt: skip
    assert sums.waited > 0.09
