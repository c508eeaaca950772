"""Filters by FFT, spectra, sorting, tables, and scalar code."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .call import Made, everyday


@everyday(16, 128)
def fft_filter(n: int) -> Made:
    """A filter in the frequency domain, then a squashing."""
    response = torch.randn(n // 2 + 1)
    return lambda x: torch.fft.irfft(torch.fft.rfft(x) * response, n=n).tanh(), torch.randn(n)


@everyday(16, 128)
def spectral_derivative(n: int) -> Made:
    """The right-hand side of Korteweg and de Vries' equation by FFT."""
    k = 1j * torch.arange(n // 2 + 1)

    def f(u: Tensor) -> Tensor:
        hat = torch.fft.rfft(u)
        return -6 * u * torch.fft.irfft(k * hat, n=n) - torch.fft.irfft(k**3 * hat, n=n)

    return f, torch.rand(n)


@everyday(16, 128)
def power_spectrum(n: int) -> Made:
    """The logarithm of a signal's power in each frequency."""
    window = torch.hann_window(n, dtype=torch.get_default_dtype())
    return lambda x: torch.log(torch.fft.rfft(x * window).abs() ** 2 + 1e-3), torch.randn(n)


@everyday(16, 200)
def filter_by_conv(n: int) -> Made:
    """A short filter, a rectifier and a second filter."""
    kernel = torch.randn(1, 1, 5) / 3

    def f(x: Tensor) -> Tensor:
        return F.conv1d(F.relu(F.conv1d(x[None, None], kernel, padding=2)), kernel, padding=2).flatten()

    return f, torch.randn(n)


@everyday(8, 100)
def sorted_gaps(n: int) -> Made:
    """Gaps between sorted numbers."""
    return lambda x: x.sort().values.diff(), torch.randn(n)


@everyday((10, 6), (200, 50))
def interpolation(n: int, queries: int) -> Made:
    """Linear interpolation in a table by its values."""
    place = torch.rand(queries) * (n - 1)
    left = place.long()
    part = place - left
    return lambda table: (1 - part) * table[left] + part * table[left + 1], torch.rand(n)


@everyday((4, 8), (10, 30))
def pooled_windows(windows: int, size: int) -> Made:
    """The maximum and the mean of each window."""

    def f(x: Tensor) -> Tensor:
        parts = x.unfold(0, size, size)
        return torch.cat([parts.amax(1), parts.mean(1), parts.std(1)])

    return f, torch.randn(windows * size)


@everyday()
def spherical_coordinates() -> Made:
    """Three numbers, scalar code."""

    def f(x: Tensor) -> Tensor:
        r, theta, phi = x
        return torch.stack([r * theta.sin() * phi.cos(), r * theta.sin() * phi.sin(), r * theta.cos()])

    return f, torch.rand(3)


@everyday()
def orbit_from_elements() -> Made:
    """A place in space from six orbital elements, Kepler's equation by five steps of Newton."""

    def f(x: Tensor) -> Tensor:
        a, e, i, node, periapsis, mean = x
        anomaly = mean
        for _ in range(5):
            anomaly = anomaly - (anomaly - e * anomaly.sin() - mean) / (1 - e * anomaly.cos())
        p, q = a * (anomaly.cos() - e), a * torch.sqrt(1 - e**2) * anomaly.sin()
        cos, sin = periapsis.cos(), periapsis.sin()
        u, v = cos * p - sin * q, sin * p + cos * q
        x_, y_ = node.cos() * u - node.sin() * i.cos() * v, node.sin() * u + node.cos() * i.cos() * v
        return torch.stack([x_, y_, i.sin() * v])

    return f, torch.tensor([1.0, 0.2, 0.5, 0.3, 0.7, 1.1])


@everyday()
def black_scholes() -> Made:
    """The price of a call by five numbers."""

    def f(x: Tensor) -> Tensor:
        spot, strike, rate, spread, time = x
        root = spread * time.sqrt()
        d = (torch.log(spot / strike) + (rate + spread**2 / 2) * time) / root
        price = spot * torch.special.ndtr(d) - strike * torch.exp(-rate * time) * torch.special.ndtr(d - root)
        return price[None]

    return f, torch.tensor([1.0, 1.1, 0.02, 0.3, 0.5])


@everyday(3, 30)
def horner(degree: int) -> Made:
    """A polynomial at five points, by its coefficients."""
    t = torch.linspace(-1, 1, 5)

    def f(c: Tensor) -> Tensor:
        value = torch.zeros(5)
        for each in c:
            value = value * t + each
        return value

    return f, torch.rand(degree + 1)
