"""Recurrent layers and packed sequences: the batch never mixes."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases, walk
from torch import nn

from torchjac import jacobian, jacrev
from torchjac.testing import loop_jacobian

s = Sampler()


def single(*shape):
    """Random numbers in single precision, in which PyTorch has a kernel for a whole layer."""
    return s(*shape, dtype=torch.float32)


torch.manual_seed(0)
LSTM = nn.LSTM(3, 4)


def packed(lengths, batch_first=False):
    """The data of packed sequences."""
    return lambda x: nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first).data


def weigh(w):
    """The layer of a weight, the others given."""
    given = dict(LSTM.named_parameters()) | {"weight_hh_l0": w}
    return torch.func.functional_call(LSTM, given, INPUT)[0]


INPUT = single(5, 2, 3)
PACKED = [
    case("PackPaddedSequenceBackward0", packed([3, 1]), s(3, 2, 4), stored=[8]),
    case("PackPaddedSequenceBackward0", packed([3, 2, 2], batch_first=True), s(3, 3, 2), stored=[14]),
    case("PackPaddedSequenceBackward0", packed([1]), s(1, 1), stored=[2]),
]


def layer(op, *args, stored):
    """A case of a layer in one kernel."""
    return case("MkldnnRnnLayerBackward0", op, *args, note="independent", stored=stored)


LAYERS = [
    layer(lambda x: LSTM(x)[0], INPUT, stored=[20 * 2 * 15]),
    layer(lambda x: LSTM(x)[1][0], INPUT, stored=[4 * 2 * 15]),
    layer(lambda x: LSTM(x)[1][1], single(1, 3, 3), stored=[4 * 3 * 3]),
    layer(lambda h, c: LSTM(INPUT, (h, c))[0], single(1, 2, 4), single(1, 2, 4), stored=[160, 160]),
    layer(weigh, single(16, 4), stored=[40 * 64]),
]
CASES = PACKED + LAYERS


@over_cases(PACKED)
def test_packed(one: Case) -> None:
    """The positions are all that is stored."""
    check(one)


@over_cases(LAYERS)
def test_layer(one: Case) -> None:
    """A matrix for each sequence is stored; single precision has its own tolerance."""
    for k, stored in enumerate(one.stored):
        J = jacobian(one.op, k)(*one.args)
        torch.testing.assert_close(J.to_dense(), loop_jacobian(one.op, *one.args, argnum=k))
        assert J.stored == stored
    assert {node.note for node in walk(one.op, *one.args) if node.name == one.node} == {one.note}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules(kind, dtype) -> None:
    """Layers in both directions, on packed sequences and on plain ones, in both precisions."""
    torch.manual_seed(1)
    net = kind(3, 2, num_layers=2, bidirectional=True).to(dtype)

    def f(x):
        y, state = net(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2])))
        return torch.cat(
            [y.data.flatten(), net(x)[0].flatten(), *(part.flatten() for part in torch.atleast_1d(*state))]
        )

    x = s(4, 2, 3, dtype=dtype)
    torch.testing.assert_close(jacobian(f)(x).to_dense(), loop_jacobian(f, x))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("steps", [1, 4])
def test_rows_through_a_layer_in_one_kernel(steps, bias, bidirectional):
    """Rows of the output and both states by input, states and weights, in both directions, equal the loop's."""
    torch.manual_seed(1)
    layers = nn.LSTM(3, 2, 2, bias=bias, bidirectional=bidirectional)
    weights = dict(layers.named_parameters())
    ways = 2 * (1 + bidirectional)

    def f(x, h, c, w):
        out, (last, cell) = torch.func.functional_call(layers, weights | {"weight_hh_l0": w}, (x, (h, c)))
        return torch.cat([out.flatten(), last.flatten(), cell.flatten()])

    args = single(steps, 2, 3), single(ways, 2, 2), single(ways, 2, 2), weights["weight_hh_l0"].detach()
    for k in range(4):
        for _ in range(3):
            torch.testing.assert_close(
                jacrev(f, k)(*args), loop_jacobian(f, *args, argnum=k), rtol=1e-4, atol=1e-5
            )
