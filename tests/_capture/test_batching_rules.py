"""Ops that vmap has no batching rule for: they are made of others, and recorded as calls of the whole batch."""

import pytest
import torch
from tests.fixtures import double  # noqa: F401
from torch import nn
from torch.nn import functional as F

import torchjac._transforms.call_function as calls
from torchjac import jacrev, vmap
from torchjac._capture.batching_rules import complete_rules
from torchjac.testing import loop_jacobian

torch.manual_seed(0)
kept = torch.get_default_dtype()
torch.set_default_dtype(torch.float64)
weight, target = torch.rand(6), torch.tensor([2, 0])
places, labels = torch.rand(2, 2, 2), torch.tensor([[1, 2, -1], [0, -1, 1]])
gru, lstm, rnn = nn.GRUCell(3, 3), nn.LSTM(2, 3, batch_first=True), nn.RNNCell(3, 3, nonlinearity="relu")
cell, bilinear, maps = nn.LSTMCell(3, 1), nn.Bilinear(2, 4, 3), torch.rand(3, 2, 4)
torch.set_default_dtype(kept)

COMPOSED = {
    "alpha dropout": lambda x: F.alpha_dropout(x * 2, 0.0, training=True),
    "bilinear": lambda x: F.bilinear(x[:2], x[2:], maps),
    "bilinear with a bias": lambda x: bilinear(x[:2].expand(2, 2), x[2:].expand(2, 4)),
    "cell of a GRU": lambda x: gru(x[:3], x[3:]),
    "cell of an LSTM": lambda x: torch.cat(cell(x[:3], (x[3:4], x[4:5]))),
    "cell of an RNN": lambda x: rnn(x[:3], x[3:]),
    "diagflat": lambda x: torch.diagflat(x.sin()),
    "is close": lambda x: torch.where(torch.isclose(x, weight), x, x * 2),
    "Kullback and Leibler": lambda x: F.kl_div(x.log_softmax(0), weight.softmax(0), reduction="none"),
    "LSTM": lambda x: lstm(x.view(1, 3, 2), (0 * x[:3].view(1, 1, 3), 0 * x[:3].view(1, 1, 3)))[0],
    "quantile": lambda x: torch.quantile(x, 0.3),
    "ranking": lambda x: F.margin_ranking_loss(x[:3], x[3:], torch.ones(3), margin=0.1, reduction="none"),
    "short Fourier": lambda x: torch.view_as_real(
        torch.stft(x, 4, 2, window=torch.ones(4), return_complex=True)
    ),
    "tensor equation": lambda x: torch.linalg.tensorsolve(torch.eye(3) * x[:3].exp(), x[3:]),
    "triplet": lambda x: F.triplet_margin_loss(x[:2][None], x[2:4][None], x[4:][None]),
}
IN_PLACE = {
    "addcmul_": lambda x: (x * 2).addcmul_(x, weight),
    "clamp_": lambda x: (x * 2).clamp_(0.3, 0.9).mul_(x),
    "clip_": lambda x: (x * 2).clip_(0.3, 0.9),
    "cumsum_": lambda x: (x * 2).cumsum_(0),
    "fill_diagonal_": lambda x: (x.view(2, 3) * 2).fill_diagonal_(1.0),
    "floor division": lambda x: (x * 2).div_(0.3, rounding_mode="floor").mul_(x),
    "index_copy_": lambda x: torch.zeros_like(x).index_copy_(0, target, x[:2]),
    "into a view": lambda x: _into_a_view(x * 2),
    "lerp_": lambda x: (x * 2).lerp_(x.sin(), x),
    "scatter_": lambda x: torch.zeros_like(x).scatter_(0, target, x[:2]),
    "square_": lambda x: (x * 2).square_(),
    "tril_": lambda x: (x.view(2, 3) * 2).tril_(),
}
DECOMPOSED = {
    "affine grid": lambda x: F.affine_grid(x.view(1, 2, 3), [1, 1, 2, 2], align_corners=False),
    "masked fill": lambda x: (x * 2).masked_fill(weight > 0.5, x[0]),
    "distances": lambda x: F.pdist(x.view(3, 2)),
    "distances in each norm": lambda x: torch.cat(
        [
            F.pdist((x + ((4 * x).round() / 4 - x).detach()).view(3, 2), p)
            for p in (0, 0.5, 1, 3, float("inf"))
        ]
    ),
    "distances of equals": lambda x: F.pdist(x[:1].expand(3, 2), float("inf")) + F.pdist(x[:1].expand(3, 2)),
    "take": lambda x: x.view(2, 3).take(torch.tensor([[1, 4], [5, 1]])),
    "renorm": lambda x: x.view(2, 3).renorm(2, 0, 0.5),
    "put": lambda x: torch.ones(2, 4).put(torch.tensor([[1, 7], [2, 1]]), x[:4].view(2, 2), accumulate=True),
    "put over": lambda x: x.view(2, 3).put(torch.tensor([4, 1]), x[:2] * 2),
    "renorm of zeros": lambda x: (x.view(2, 3) * torch.tensor([[1.0], [0.0]])).renorm(2, 0, 0.5),
}
OWN_BATCHES = {
    "fractional pool": lambda x: F.fractional_max_pool2d(
        x.view(1, 2, 3), 2, output_size=(1, 2), _random_samples=torch.full((1, 1, 2), 0.4)
    ),
    "fractional pool of images": lambda x: F.fractional_max_pool2d(
        x.expand(4, 6).view(2, 2, 2, 3), 2, output_size=(1, 2), _random_samples=places
    ),
    "fractional pool in space": lambda x: F.fractional_max_pool3d(
        x.repeat(2).view(1, 3, 2, 2), (2, 1, 1), output_size=1, _random_samples=torch.full((1, 1, 3), 0.4)
    ),
    "log of a normal distribution": lambda x: torch.special.log_ndtr(x - 1),
    "LU": lambda x: torch.cat(torch.linalg.lu(x[:4].view(2, 2) + torch.tensor([[0.0, 2.0], [3.0, 0.0]]))[1:]),
    "LU of wide ones": lambda x: torch.linalg.lu(x.view(1, 2, 3), pivot=True)[2],
    "margins": lambda x: F.multi_margin_loss(x.view(2, 3), target, reduction="none"),
    "margins of one": lambda x: F.multi_margin_loss(x, target[0], p=2, margin=0.7),
    "margins, weighted": lambda x: F.multi_margin_loss(x.view(2, 3), target, weight=weight[:3]),
    "margins, summed": lambda x: F.multi_margin_loss(x.view(2, 3), target, reduction="sum"),
    "labels": lambda x: F.multilabel_margin_loss(x.view(2, 3), labels, reduction="none"),
    "labels of one": lambda x: F.multilabel_margin_loss(x[:3], labels[0]),
    "labels, summed": lambda x: F.multilabel_margin_loss(x.view(2, 3), labels, reduction="sum"),
    "unpool": lambda x: F.max_unpool2d(x.view(1, 2, 3), torch.tensor([[[1, 5, 6], [8, 3, 0]]]), 2),
    "unpool images": lambda x: F.max_unpool2d(
        x.view(2, 1, 1, 3), torch.tensor([[[[1, 5, 6]]], [[[8, 3, 0]]]]), 2, output_size=(2, 6)
    ),
    "unpool in space": lambda x: F.max_unpool3d(
        x.view(1, 1, 2, 3), torch.tensor([[[[1, 5, 6], [8, 3, 0]]]]), 2
    ),
}
#: PyTorch refuses to make these of no sample
REFUSED_EMPTY = (
    "diagflat",
    "fractional pool",
    "fractional pool in space",
    "short Fourier",
    "unpool",
    "unpool in space",
)

FUNCTIONS = COMPOSED | IN_PLACE | DECOMPOSED | OWN_BATCHES


def _into_a_view(y):
    y[::2].clamp_(0.2, 0.6)
    return y


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name, batch):
    """The Jacobian of each sample is that of the loop."""
    if batch == 0 and name in REFUSED_EMPTY:
        batch = 2
    function, x = FUNCTIONS[name], torch.rand(batch, 6) + 0.1
    found = vmap(jacrev(function))(x)
    assert batch == 0 or torch.allclose(found, torch.stack([loop_jacobian(function, sample) for sample in x]))
    torch.testing.assert_close(vmap(vmap(jacrev(function)))(x[:, None])[:, 0], found)
    torch.testing.assert_close(vmap(jacrev(function), in_dims=1)(x.T), found)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_graph_for_the_batch(name, monkeypatch):
    """The function is captured beneath vmap, with as many nodes whatever the batch."""
    found = []
    own = calls.capture_beneath

    def capture(*args):
        captured, beneath = own(*args)
        found.append(len(captured.graph.nodes))
        return captured, beneath

    monkeypatch.setattr(calls, "capture_beneath", capture)
    for batch in (2, 5):
        vmap(jacrev(FUNCTIONS[name]))(torch.rand(batch, 6) + 0.1)
    assert len(found) == 2
    assert found[0] == found[1]


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_randomness(randomness):
    """Dropout that PyTorch composes of other ops heeds how random numbers are shared; a loop would not."""
    found = vmap(jacrev(lambda x: F.alpha_dropout(x, 0.5, training=True)), randomness=randomness)(
        torch.ones(8, 16)
    )
    kept = found.diagonal(0, 1, 2) != 0
    assert bool((kept == kept[0]).all()) == (randomness == "same")


def test_randomness_is_refused():
    """Dropout inside a vmap that refuses random numbers is refused."""
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(jacrev(lambda x: F.alpha_dropout(x, 0.5, training=True)))(torch.ones(8, 16))


def test_shared_tensors_are_not_written_into():
    """A write of samples into a tensor that they share is refused, by an op in place without a rule as by any."""
    shared = torch.zeros(6)
    with pytest.raises(RuntimeError, match="place"):
        vmap(jacrev(lambda x: shared.lerp_(x, 0.5)))(torch.rand(3, 6))
    assert not shared.any()


def test_vmap_alone():
    """The values of vmap alone are those of a loop, once the rules are registered."""
    complete_rules()
    x = torch.rand(3, 6) + 0.1
    for function in FUNCTIONS.values():
        torch.testing.assert_close(vmap(function)(x), torch.stack([function(sample) for sample in x]))
