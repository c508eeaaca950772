"""Right-hand sides of differential equations, chemistry, power flow, and loops that integrate them."""

from __future__ import annotations

import torch
from torch import Tensor

from .call import Made, everyday


def lorenz_field(x: Tensor) -> Tensor:
    """Lorenz' attractor."""
    a, b, c = x
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])


@everyday()
def lorenz() -> Made:
    """Three numbers, scalar code."""
    return lorenz_field, torch.rand(3)


@everyday(8, 40, 200)
def lorenz_96(n: int) -> Made:
    """A ring of n numbers by roll."""
    return lambda x: (x.roll(-1) - x.roll(2)) * x.roll(1) - x + 8, torch.rand(n)


@everyday()
def double_pendulum() -> Made:
    """Two angles and their speeds."""

    def f(s: Tensor) -> Tensor:
        a, b, v, w = s.unbind()
        d = a - b
        down = 3 - torch.cos(2 * d)
        first = -29.43 * a.sin() - 9.81 * (a - 2 * b).sin() - 2 * d.sin() * (w**2 + v**2 * d.cos())
        second = 2 * d.sin() * (2 * v**2 + 19.62 * a.cos() + w**2 * d.cos())
        return torch.stack([v, w, first / down, second / down])

    return f, torch.rand(4)


@everyday()
def cart_pole() -> Made:
    """A pole on a cart, the force among the inputs."""

    def f(s: Tensor) -> Tensor:
        _, v, angle, w, force = s
        sin, cos = torch.sin(angle), torch.cos(angle)
        push = (force + 0.05 * w**2 * sin) / 1.1
        turning = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        return torch.stack([v, push - 0.05 * turning * cos / 1.1, w, turning])

    return f, torch.rand(5)


@everyday(3, 20)
def predators(n: int) -> Made:
    """Lotka and Volterra's equations of n species."""
    growth, mixing = torch.rand(n), torch.randn(n, n)
    return lambda x: x * (growth + mixing @ x), torch.rand(n)


@everyday()
def robertson() -> Made:
    """The stiff reaction of three species."""

    def f(y: Tensor) -> Tensor:
        slow, fast, last = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return torch.stack([-slow + fast, slow - fast - last, last])

    return f, torch.rand(3)


@everyday((6, 8), (30, 60))
def mass_action(species: int, reactions: int) -> Made:
    """Rates as products of powers of the concentrations, and the matrix of the reactions."""
    orders = torch.randint(0, 2, (reactions, species)).to(torch.get_default_dtype())
    change, speed = torch.randint(-1, 2, (species, reactions)).to(orders.dtype), torch.rand(reactions)
    return lambda c: change @ (speed * (c**orders).prod(1)), torch.rand(species) + 0.5


@everyday(8, 64)
def brusselator(cells: int) -> Made:
    """Reaction and diffusion along a line."""

    def spread(u: Tensor) -> Tensor:
        padded = torch.cat([u[:1], u, u[-1:]])
        return padded[2:] - 2 * u + padded[:-2]

    def f(x: Tensor) -> Tensor:
        u, v = x.chunk(2)
        return torch.cat([1 + u * u * v - 4 * u + spread(u), 3 * u - u * u * v + spread(v)])

    return f, torch.rand(2 * cells)


@everyday(1, 10, 50)
def runge_kutta(steps: int) -> Made:
    """The classical method on Lorenz' attractor, by the start."""

    def f(x: Tensor) -> Tensor:
        for _ in range(steps):
            a = lorenz_field(x)
            b = lorenz_field(x + 0.005 * a)
            c = lorenz_field(x + 0.005 * b)
            d = lorenz_field(x + 0.01 * c)
            x = x + 0.01 / 6 * (a + 2 * b + 2 * c + d)
        return x

    return f, torch.rand(3)


@everyday(20, 100)
def euler_pendulum_by_controls(steps: int) -> Made:
    """Where a driven pendulum goes, by the torque at every step."""

    def f(torques: Tensor) -> Tensor:
        angle, speed, path = torch.tensor(0.1), torch.tensor(0.0), []
        for torque in torques:
            speed = speed + 0.05 * (torque - torch.sin(angle))
            angle = angle + 0.05 * speed
            path.append(angle)
        return torch.stack(path)

    return f, torch.rand(steps)


@everyday((4, 10), (32, 20))
def neural_ode(n: int, steps: int) -> Made:
    """Euler's method on a small network."""
    first, second = torch.randn(n, n) / n**0.5, torch.randn(n, n) / n**0.5

    def f(x: Tensor) -> Tensor:
        for _ in range(steps):
            x = x + 0.1 * second @ torch.tanh(first @ x)
        return x

    return f, torch.rand(n)


@everyday(20, 60)
def epidemic_by_rates(steps: int) -> Made:
    """The infected of each day, by the rates of infection and recovery."""

    def f(rates: Tensor) -> Tensor:
        s, i, found = 0.99, 0.01, []
        for _ in range(steps):
            new = rates[0] * s * i
            s, i = s - new, i + new - rates[1] * i
            found.append(i)
        return torch.stack(found)

    return f, torch.tensor([0.5, 0.1])


@everyday(10, 60, order=2)
def decay_chain_by_rates(steps: int) -> Made:
    """The Hessian of a loss of a chain of decays by its rates."""

    def f(rate: Tensor) -> Tensor:
        y = torch.ones(3)
        for _ in range(steps):
            a, b, c = y
            y = y + 0.01 * torch.stack([-rate[0] * a, rate[0] * a - rate[1] * b, rate[1] * b - rate[2] * c])
        return y.square().sum()

    return f, torch.rand(3)


@everyday(5, 30)
def power_flow(buses: int) -> Made:
    """Active and reactive power at each bus of a net, by angles and voltages."""
    conductance = torch.rand(buses, buses) + torch.eye(buses)
    susceptance = torch.rand(buses, buses) - 5 * torch.eye(buses)

    def f(x: Tensor) -> Tensor:
        angle, voltage = x[:buses], 1 + x[buses:]
        apart = angle[:, None] - angle[None, :]
        cos, sin = apart.cos(), apart.sin()
        active = voltage * ((conductance * cos + susceptance * sin) @ voltage)
        reactive = voltage * ((conductance * sin - susceptance * cos) @ voltage)
        return torch.cat([active, reactive])

    return f, torch.rand(2 * buses) / 10


@everyday(5, 30)
def complex_power_flow(buses: int) -> Made:
    """The same in complex numbers."""
    admittance = torch.complex(torch.rand(buses, buses), torch.rand(buses, buses))

    def f(x: Tensor) -> Tensor:
        voltage = torch.polar(1 + x[buses:], x[:buses])
        power = voltage * (admittance @ voltage).conj()
        return torch.cat([power.real, power.imag])

    return f, torch.rand(2 * buses) / 10
