"""Recurrent nets, scans, and loops that write by index."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .call import Made, everyday
from .learning import by_parameters, frozen


def sequence(kind: type[nn.RNNBase], batch: int, steps: int, width: int) -> Made:
    """What a recurrent net says of each step, by its whole input."""
    model = frozen(kind(4, width, batch_first=True))
    return lambda x: model(x)[0], torch.rand(batch, steps, 4)


@everyday((1, 5, 8), (1, 12, 16), (4, 6, 8))
def lstm_by_input(batch: int, steps: int, width: int) -> Made:
    """PyTorch's LSTM."""
    return sequence(nn.LSTM, batch, steps, width)


@everyday((1, 5, 8), (4, 6, 8))
def gru_by_input(batch: int, steps: int, width: int) -> Made:
    """PyTorch's GRU."""
    return sequence(nn.GRU, batch, steps, width)


@everyday((1, 5, 8), (1, 20, 16), (4, 6, 8))
def rnn_by_input(batch: int, steps: int, width: int) -> Made:
    """PyTorch's plain recurrent net."""
    return sequence(nn.RNN, batch, steps, width)


@everyday((1, 4), (4, 8))
def last_of_lstm_by_parameters(batch: int, steps: int) -> Made:
    """What an LSTM says at the end, by its parameters."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 6, batch_first=True), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, -1])  # type: ignore[no-any-return]

    return by_parameters(Last(), torch.rand(batch, steps, 2))


@everyday(8, 32)
def gru_cell_by_state(width: int) -> Made:
    """One cell by its state."""
    cell, x = frozen(nn.GRUCell(4, width)), torch.rand(1, 4)
    return lambda h: cell(x, h), torch.rand(1, width)


@everyday((5, 8), (20, 16))
def loop_of_lstm_cells(steps: int, width: int) -> Made:
    """A loop over a cell, the last state."""
    cell = frozen(nn.LSTMCell(4, width))

    def f(x: Tensor) -> Tensor:
        h, c = torch.zeros(1, width), torch.zeros(1, width)
        for each in x:
            h, c = cell(each[None], (h, c))
        return h[0]

    return f, torch.rand(steps, 4)


@everyday(20, 60)
def scalar_recurrence(steps: int) -> Made:
    """A number carried through a loop, all its values."""

    def f(x: Tensor) -> Tensor:
        s, found = torch.zeros(()), []
        for each in x:
            s = torch.tanh(s + each)
            found.append(s)
        return torch.stack(found)

    return f, torch.rand(steps)


@everyday((20, 3), (80, 8))
def moving_average(steps: int, width: int) -> Made:
    """An exponential moving average by a loop."""

    def f(x: Tensor) -> Tensor:
        mean, found = x[0], []
        for each in x:
            mean = 0.9 * mean + 0.1 * each
            found.append(mean)
        return torch.stack(found)

    return f, torch.rand(steps, width)


@everyday((10, 3), (40, 3))
def recurrence_by_index(steps: int, width: int) -> Made:
    """A recurrence written into a buffer."""
    w = torch.rand(width)

    def f(x: Tensor) -> Tensor:
        y = torch.zeros(steps, width)
        y[0] = x[0]
        for t in range(1, steps):
            y[t] = w * y[t - 1].clone() + x[t]
        return y

    return f, torch.rand(steps, width)


@everyday(4, 8)
def reactions_by_index(n: int) -> Made:
    """Rates added entry by entry."""

    def f(x: Tensor) -> Tensor:
        du = torch.zeros(n)
        for i in range(n):
            for j in range(i):
                rate = x[i] * x[j]
                du[i] += 2 * rate
                du[j] -= rate
        return du

    return f, torch.rand(n)


@everyday(20, 120)
def masked_writes(n: int) -> Made:
    """Writes under a mask that shrinks."""

    def f(x: Tensor) -> Tensor:
        for k in range(6):
            mask = torch.arange(n) >= k
            x = x.clone()
            x[mask] = x[mask].sin()
        return x

    return f, torch.rand(n)


@everyday(10, 200)
def cumulative_product(n: int) -> Made:
    """A survival curve."""
    return lambda x: torch.cumprod(1 - torch.sigmoid(x), 0), torch.randn(n)


@everyday(10, 200)
def discounted_sum(n: int) -> Made:
    """Returns of a sequence of rewards, by cumsum."""
    discount = 0.99 ** torch.arange(n)
    return lambda x: (x * discount).flip(0).cumsum(0).flip(0) / discount, torch.rand(n)


@everyday(5, 20)
def kalman_filter(steps: int) -> Made:
    """The innovations of a filter, by the measurements and the logarithms of two noises."""
    step = torch.tensor([[1.0, 0.1], [0.0, 1.0]])

    def f(x: Tensor) -> Tensor:
        process, noise = x[0].exp(), x[1].exp()
        mean, cov, found = torch.zeros(2), torch.eye(2), []
        for seen in x[2:]:
            mean, cov = step @ mean, step @ cov @ step.T + process * torch.eye(2)
            gain = cov[:, 0] / (cov[0, 0] + noise)
            error = seen - mean[0]
            mean, cov = mean + gain * error, cov - torch.outer(gain, cov[0])
            found.append(error)
        return torch.stack(found)

    return f, torch.rand(steps + 2)
