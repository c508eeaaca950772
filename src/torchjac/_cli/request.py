"""The request of a command line, as data: a process of its own can be handed it and find the same function."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._torch import pytree
from .arguments import as_arguments, check_count, from_file, from_spec, in_words
from .errors import Stop, raised, usage
from .target import find


class FunctionCall(NamedTuple):
    """A function, its arguments, and which of them are differentiated."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    argnums: int | tuple[int, ...]
    target: str

    def in_words(self) -> str:
        """``module:function(float64 (2, 500))``."""
        return f"{self.target}({', '.join(map(in_words, self.arguments))})"

    def value(self) -> Any:
        """Return what the function returns, from arguments as a Jacobian gives it.

        Raises:
            Stop: with its own error, where it raises.
        """
        copies = [
            _fresh(argument, number in self.positions) for number, argument in enumerate(self.arguments)
        ]
        try:
            with torch.enable_grad():
                found = self.function(*copies)
        except Exception as error:
            raise raised(self.in_words(), error) from error
        return pytree.tree_map_only(Tensor, Tensor.detach, found)

    @property
    def positions(self) -> tuple[int, ...]:
        """Which arguments are differentiated, counted from the front."""
        chosen = (self.argnums,) if isinstance(self.argnums, int) else self.argnums
        return tuple(n % len(self.arguments) for n in chosen)

    def chosen(self) -> list[Any]:
        """Return the arguments that are differentiated."""
        return [self.arguments[n] for n in self.positions]


@dataclass(frozen=True)
class Request:
    """The target and the options that every command takes."""

    target: str
    specs: tuple[str, ...] = ()
    file: str | None = None
    argnums: tuple[int, ...] = (0,)
    fill: str = "normal"
    seed: int = 0
    device: str = "cpu"

    def load(self) -> FunctionCall:
        """Import the function and make its arguments.

        Raises:
            Stop: where anything about it is wrong.
        """
        if self.specs and self.file:
            raise Stop("give arguments by --arg or by --args, not by both")
        generator = torch.Generator().manual_seed(self.seed)
        path = Path(self.file) if self.file else None
        given = (
            from_file(path) if path else tuple(from_spec(spec, self.fill, generator) for spec in self.specs)
        )
        with usage(f"--device {self.device}"):
            given = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(self.device), given)
        function = find(self.target)  # after all that runs no code of the user's
        torch.manual_seed(self.seed)
        arguments = as_arguments(given, function, path) if path else given
        check_count(function, arguments, self.target)
        if not arguments:
            raise Stop(
                f"{self.target} needs an argument to differentiate; give one with --arg, as --arg 2,500"
            )
        count = len(arguments)
        said = f"--argnums {','.join(map(str, self.argnums))}"
        if any(not -count <= n < count for n in self.argnums):
            raise Stop(f"{said}: out of range for {count} argument{'s' * (count != 1)}")
        if len({n % count for n in self.argnums}) < len(self.argnums):
            raise Stop(f"{said}: names an argument twice")
        argnums = self.argnums[0] if len(self.argnums) == 1 else self.argnums
        return FunctionCall(function, arguments, argnums, self.target)

    def to_json(self) -> str:
        """Return the request as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Request:
        """Return the request that `to_json` wrote."""
        found: dict[str, Any] = json.loads(text)
        found["specs"], found["argnums"] = tuple(found["specs"]), tuple(found["argnums"])
        return Request(**found)


def _fresh(argument: Any, differentiated: bool) -> Any:
    """Copies that the function may write into, and that ask for gradients where they will be differentiated."""

    def copy(tensor: Tensor) -> Tensor:
        asks = differentiated and tensor.is_floating_point()
        return tensor.detach().clone().requires_grad_(asks).clone()

    return pytree.tree_map_only(Tensor, copy, argument)
