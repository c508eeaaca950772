"""Networks by their input and by their parameters: dense layers, convolutions, attention."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from .call import Made, everyday

Module = Callable[[Tensor], Tensor]


def dense(*sizes: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """A multilayer perceptron."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def by_parameters(model: nn.Module, x: Tensor) -> Made:
    """The model as a function of the dict of its parameters."""
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    return lambda p: functional_call(model, p, (x,)), parameters


def frozen(model: nn.Module) -> nn.Module:
    """The model with parameters that ask for no gradient."""
    return model.requires_grad_(False)


@everyday((3, 16, 2), (16, 64, 10), (64, 256, 32))
def mlp_by_input(n: int, width: int, out: int) -> Made:
    """Three layers, one sample."""
    return frozen(dense(n, width, width, out)), torch.rand(n)


@everyday((4, 8), (16, 32))
def mlp_by_batch(batch: int, width: int) -> Made:
    """A batch, the whole Jacobian by it."""
    return frozen(dense(6, width, width, 3, activation=nn.ReLU)), torch.rand(batch, 6)


@everyday((1, 8), (8, 16), (16, 64))
def mlp_by_parameters(batch: int, width: int) -> Made:
    """Three layers by all weights and biases."""
    return by_parameters(dense(4, width, width, 2), torch.rand(batch, 4))


@everyday(10, 30)
def deep_mlp_by_input(layers: int) -> Made:
    """Many narrow layers."""
    return frozen(dense(4, *[8] * layers, 2, activation=nn.SiLU)), torch.rand(4)


@everyday(10, 30)
def deep_mlp_by_parameters(layers: int) -> Made:
    """Many narrow layers by their parameters."""
    return by_parameters(dense(4, *[8] * layers, 2), torch.rand(3, 4))


@everyday(3, 12)
def residual_mlp_by_input(blocks: int) -> Made:
    """Residual blocks with layer normalisation."""
    layers = [
        frozen(nn.Sequential(nn.LayerNorm(16), dense(16, 32, 16, activation=nn.GELU))) for _ in range(blocks)
    ]

    def f(x: Tensor) -> Tensor:
        for layer in layers:
            x = x + layer(x)
        return x

    return f, torch.rand(16)


def convolutions(size: int) -> nn.Sequential:
    """Two convolutions, a pooling and a dense layer."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * (size // 2) ** 2, 10),
    )


@everyday((1, 8), (1, 20), (4, 8))
def conv_net_by_input(batch: int, size: int) -> Made:
    """A small conv net by its images."""
    return frozen(convolutions(size)), torch.rand(batch, 1, size, size)


@everyday((1, 8), (4, 12))
def conv_net_by_parameters(batch: int, size: int) -> Made:
    """The same by its parameters."""
    return by_parameters(convolutions(size), torch.rand(batch, 1, size, size))


@everyday(8, 24)
def image_filter(size: int) -> Made:
    """Image to image: batch normalisation in evaluation between two convolutions."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)
    )
    return frozen(model).eval(), torch.rand(1, 1, size, size)


@everyday((4, 8), (16, 16))
def attention_by_input(tokens: int, width: int) -> Made:
    """One head, written out."""
    q, k, v = torch.randn(3, width, width) / width**0.5

    def f(x: Tensor) -> Tensor:
        return torch.softmax(x @ q @ (x @ k).T / width**0.5, -1) @ (x @ v)

    return f, torch.rand(tokens, width)


@everyday((4, 8), (12, 16))
def multihead_attention(tokens: int, width: int) -> Made:
    """Two heads by PyTorch's function."""
    project = frozen(nn.Linear(width, 3 * width))

    def f(x: Tensor) -> Tensor:
        q, k, v = project(x).reshape(1, tokens, 3, 2, -1).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens, width)

    return f, torch.rand(tokens, width)


@everyday(4, 10)
def transformer_layer_by_input(tokens: int) -> Made:
    """An encoder layer as PyTorch has it."""
    return frozen(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)), torch.rand(
        1, tokens, 8
    )


@everyday(4)
def attention_by_parameters(tokens: int) -> Made:
    """One head by its three matrices in a dict."""
    x = torch.rand(tokens, 8)

    def f(p: dict[str, Tensor]) -> Tensor:
        return torch.softmax(x @ p["q"] @ (x @ p["k"]).T / 8**0.5, -1) @ (x @ p["v"])

    return f, {name: torch.randn(8, 8) / 3 for name in "qkv"}


@everyday(4, 16)
def coupling_flow(n: int) -> Made:
    """Four coupling layers."""
    order, mixing = torch.randperm(n), torch.randn(4, n // 2, n) / n**0.5

    def f(x: Tensor) -> Tensor:
        for V in mixing:
            a, z = x[order].chunk(2)
            s, t = (a @ V).chunk(2)
            x = torch.cat([a, z * s.tanh().exp() + t])
        return x

    return f, torch.rand(n)


@everyday(8, 32)
def autoencoder(n: int) -> Made:
    """There and back through few numbers."""
    return frozen(dense(n, 16, 2, 16, n, activation=nn.Softplus)), torch.rand(n)


@everyday((2, 16), (8, 64), order=2)
def mlp_hessian_by_input(n: int, width: int) -> Made:
    """The Hessian of a scalar network, as for a physics-informed one."""
    model = frozen(dense(n, width, width, 1))
    return lambda x: model(x)[0], torch.rand(n)


@everyday((8, 4), (32, 8), order=2)
def loss_hessian_by_parameters(batch: int, width: int) -> Made:
    """The Hessian of a mean squared error by a dict of parameters."""
    f, parameters = by_parameters(dense(2, width, 1), torch.rand(batch, 2))
    target = torch.rand(batch, 1)
    return lambda p: F.mse_loss(f(p), target), parameters


@everyday(5, 20)
def words_by_table(words: int) -> Made:
    """A classifier of texts by its table of word vectors."""
    ids, head = torch.randint(words, (4, 6)), frozen(nn.Linear(8, 3))
    return lambda table: head(F.embedding(ids, table).mean(1).tanh()), torch.rand(words, 8)
