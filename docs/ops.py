"""Writes the page of the documentation that tells which ops keep structure, from the rules themselves.

python docs/ops.py
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from torchjac._rules.registry import RULES, Rule, name_of

OUT = Path(__file__).parent / "reference" / "ops.md"

_CUDA, _METAL = "on a GPU of NVIDIA or AMD only", "on Metal only"
_NONE = "PyTorch has no derivative of it"

#: Nodes of second derivatives that have no rule, each with its reason; they are called on dense rows
OPAQUE_TWICE: dict[str, str] = {
    "CdistBackwardBackward0": f"{_NONE}; `cdist` has a rule that does not record it",
    "PdistBackwardBackward0": f"{_NONE}; `pdist` has a rule that does not record it",
    "EmbeddingBagBackwardBackward0": _NONE,
    "EmbeddingBagDenseBackwardBackward0": _NONE,
    "MaxPool2DBackwardBackward0": f"{_NONE}; `max_pool2d` records the kernel with indices, which has a rule",
    "CudnnBatchNormBackwardBackward0": _CUDA,
    "CudnnGridSamplerBackwardBackward0": _CUDA,
    "CudnnRnnBackwardBackward0": _CUDA,
    "MiopenBatchNormBackwardBackward0": _CUDA,
    "MpsConvolutionBackwardBackward0": _METAL,
    "LinearBackwardBackward0": f"{_METAL}, and of nested tensors",
    "GridSampler2DCpuFallbackBackwardBackward0": "recorded only where the fallback kernel is called by its own name",
    "SlowConv2DBackwardBackward0": "recorded only where the slow kernel is called by its own name",
}

HEAD = """# Which ops keep structure

Written from the rules by `docs/ops.py`.

Autograd leaves a node for each op that it records, and a rule tells the local Jacobian of the node: which entries
there are, and their values. Ops that are not listed are called on dense rows: slow, and right all the same. What a
function of yours meets is told by [`explain`](reports.md);
[When structure is lost](../explanation/structure-lost.md) tells what to do about it,
[Add a rule](../howto/add-a-rule.md) how to list another op.

Names are those of autograd's nodes, without "Backward" and a number: `Mm` is `torch.mm`, recorded as `MmBackward0`.
An op with "backward" behind it is recorded where a gradient is differentiated again, as for a Hessian.
"""

TWICE = """
## Second derivatives without a rule

Of the nodes that PyTorch can leave where a gradient is differentiated again, all have a rule above but these:

| node | why |
|---|---|
"""


def op_of(name: str) -> str:
    """The op that leaves nodes of a name: ``Mm`` of ``MmBackward0``, ``Glu backward`` of ``GluBackwardBackward0``."""
    op = re.sub(r"Backward\d*$", "", name.rpartition("::")[2])
    forward = re.sub(r"Backward(Data)?$", "", op)
    return op if forward == op else f"{forward} backward"


def is_twice(name: str) -> bool:
    """Whether nodes of this name are left by a backward formula, or by one in forward mode."""
    return bool(re.search(r"Backward(Data)?Backward\d*$|JvpBackward\d*$", name))


def told(rule: Rule) -> tuple[str, str]:
    """What a rule says of its ops in a sentence, and its example if it has one."""
    paragraphs = [" ".join(part.split()) for part in inspect.getdoc(rule).split("\n\n")]
    example = next((part.removeprefix("Example: ") for part in paragraphs if part.startswith("Example:")), "")
    return paragraphs[0].replace("|", "\\|"), example.replace("|", "\\|")


def page() -> str:
    """The page: a section for each family of rules, a row for each rule."""
    families: dict[str, dict[Rule, dict[str, None]]] = {}
    for op, found in RULES.items():
        if found.built_in:
            rules = families.setdefault(found.rule.__module__, {})
            rules.setdefault(found.rule, {})[op_of(name_of(op))] = None
    parts = [HEAD]
    for module, rules in sorted(families.items()):
        title, _, rest = inspect.getdoc(sys.modules[module]).partition("\n")[0].rstrip(".").partition(": ")
        parts.append(f"\n## {title}\n")
        if rest:
            parts.append(f"\n{rest[0].upper()}{rest[1:]}.\n")
        parts.append("\n| ops | what is kept | example |\n|---|---|---|\n")
        for rule, ops in rules.items():
            parts.append(f"| {', '.join(f'`{op}`' for op in sorted(ops))} | {' | '.join(told(rule))} |\n")
    parts.append(TWICE)
    parts += [f"| `{name}` | {reason} |\n" for name, reason in sorted(OPAQUE_TWICE.items())]
    return "".join(parts)


def main() -> None:
    """Write the page."""
    OUT.write_text(page())


if __name__ == "__main__":
    main()
