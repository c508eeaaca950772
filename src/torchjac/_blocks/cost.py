"""The cost rules of the engine, all in one place, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .._plan.price import LAUNCH, MULTIPLIED, NODE, NUMBER, mapped
from .block import Block, entries, stored
from .maps import Gather

#: Past this many blocks it is worth looking which of them stand on one line: that takes some five
#: microseconds for each.
MANY_BLOCKS = 8

#: Past this many, even more numbers are worth storing for fewer blocks: every block costs some tens of
#: microseconds of Python at every later node, whatever its size.
MOST_BLOCKS = 48

#: The coordinates that are sorted in the time that a block costs at a node; smaller blocks of a long list are
#: cheaper to carry as coordinates.
BLOCK_ENTRIES = 256

#: And the numbers that are moved in it, about.
LISTED_NUMBERS = 2048


def densifies(blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int]) -> bool:
    """Return whether the blocks hold as many numbers as the dense Jacobian would: then structure only costs."""
    return sum(map(stored, blocks)) >= prod(out_shape) * prod(wrt_shape)


def is_sparse(block: Block, out_shape: Sequence[int], wrt_shape: Sequence[int]) -> bool:
    """Return whether a block names at most a third of all entries: as coordinates it takes three numbers for each."""
    return 3 * entries(block) <= prod(out_shape) * prod(wrt_shape)


def may_overlap(blocks: Sequence[Block], out_shape: Sequence[int], wrt_shape: Sequence[int]) -> bool:
    """Return whether blocks may name far fewer entries than they hold numbers; a table may name some several times."""
    named = sum(map(entries, blocks))
    return named <= FEW_NAMED * prod(out_shape) * prod(wrt_shape) and all(
        is_sparse(block, out_shape, wrt_shape) or any(type(map_) is Gather for map_ in block.out + block.wrt)
        for block in blocks
    )


#: The numbers that are written in the time that one more block takes at a node.
BLOCK_NUMBERS = 500


def one_pays(blocks: int, numbers: int) -> bool:
    """Return whether several blocks of a small Jacobian are better carried as one that holds all its numbers.

    For dense answers only: what is zero by structure is told no more.
    """
    return blocks > 1 and numbers <= BLOCK_NUMBERS * (blocks - 1)


def is_many(blocks: Sequence[Block]) -> bool:
    """Return whether a list is long enough to look for blocks that stand on one line."""
    return len(blocks) > MANY_BLOCKS


def is_long(blocks: Sequence[object]) -> bool:
    """Return whether a list has grown so long that another form may be cheaper to carry."""
    return len(blocks) > MOST_BLOCKS


def has_few_entries(block: Block, is_coordinates: bool) -> bool:
    """Return whether a block of a long list has so few entries that coordinates are cheaper to carry.

    Coordinates that came from such a list are sorted anew with what joins them.
    """
    return entries(block) <= BLOCK_ENTRIES * (MOST_BLOCKS if is_coordinates else 1)


def coordinates_pay(
    small: Sequence[Block], large: Sequence[Block], out_shape: Sequence[int], wrt_shape: Sequence[int]
) -> bool:
    """Return whether large blocks beside the coordinates of small ones are cheaper to carry than all entries.

    Coordinates are an index for each dim and a value for each entry; a block costs as much as
    `LISTED_NUMBERS` beside what it stores.
    """
    held = sum(map(entries, small)) * (len(out_shape) + len(wrt_shape) + 1)
    carried = sum(map(stored, large)) + LISTED_NUMBERS * len(large)
    return held + carried < prod(out_shape) * prod(wrt_shape)


def samples_pay(samples: int, named: int, entries: int, values: int) -> bool:
    """Return whether a list of ``named`` of each sample's ``entries`` is no structure lost, nor much more to hold.

    Blocks hold ``values``; twice as many are no price for one block.
    """
    return 3 * named > entries and samples * named <= 2 * values


#: A list of coordinates names every entry; a block may name many more than it holds (a sum does).
FEW_NAMED = 8


def lists_cost_less(pairs: int, joins: bool, named: int, held: int) -> bool:
    """Return whether a product with tables in it is cheaper of two lists of coordinates than block by block.

    Block by block a pair costs a call or more; where two tables are matched by their values (``joins``) it also
    keeps every match, where a list keeps their sums. ``named`` entries make up the lists, ``held`` numbers the
    blocks and what they stand between.
    """
    return (joins or pairs > MOST_BLOCKS) and named <= FEW_NAMED * held


def seeds_pay(seeds: int, rows: int) -> bool:
    """Return whether pushing each block's own seeds through a node takes fewer calls than all dense rows."""
    return seeds < rows


def own_rows_pay(own: int, seeds: int) -> bool:
    """Return whether a node's own dense Jacobian should be formed and multiplied: where it has far fewer rows.

    A product costs more arithmetic than calls on the seeds do, but arithmetic in one matrix product.
    """
    return own < seeds and (own == 1 or 8 * own <= seeds)


def rows_of_node_pay(own: int, columns: int) -> bool:
    """Return whether tangents pass a node by its own dense Jacobian, which has ``own`` rows, and not column by column.

    Seeds for the rows are one call; the graph of the backward formula is recorded and walked.
    """
    return own <= columns


#: A number multiplied in a matrix product takes this part of the time that writing one takes
PRODUCT_RATE = MULTIPLIED / NUMBER

#: The time of a number of a Jacobian that a node is called for on the way up, in numbers written: seeds
#: are laid out, the formula's graph is recorded and walked or its rows are copied, and what comes is composed.
CALLED_RATE = 4

#: The factor by which an order other than reverse must take less work: its estimate is rough, and a cotangent costs
#: less than a tangent where a node is called.
TURN_GAIN = 2

#: The microseconds that it must save, about the time in which an order is picked
TURN_LEAST = 10 * NODE


def turn_may_pay(rows: int, numbers: int) -> bool:
    """Return whether another order than reverse can save enough, where ``rows`` rows move ``numbers`` numbers each."""
    return NUMBER * rows * numbers > TURN_LEAST


def is_narrow(rows: int, columns: int, least: int) -> bool:
    """Return whether there are far fewer inputs than outputs, or is a place that is narrow against both.

    The narrowest place has ``least`` numbers, or more.
    """
    return least > 0 and (columns * TURN_GAIN <= rows or least * TURN_GAIN <= min(rows, columns))


#: The factor by which numbers must take longer than nodes for that to be worth while where no place is narrow.
WEIGHED_OFTEN = 16


def work_matters(work: float, nodes: int, narrow: bool) -> bool:
    """Return whether a walk spends more on numbers than on nodes: if not, no order can halve its time."""
    return NUMBER * work > NODE * nodes * (1 if narrow else WEIGHED_OFTEN)


def turn_pays(work: float, otherwise: float) -> bool:
    """Return whether an order saves enough against another."""
    return work * TURN_GAIN <= otherwise and NUMBER * (otherwise - work) > TURN_LEAST


#: The factor by which two factors must hold fewer numbers than their product to be kept: one list of blocks is easier
#: to ask.
FACTORS_GAIN = 4


def factors_pay(held: float, product: float) -> bool:
    """Return whether a product is better kept as its factors."""
    return held * FACTORS_GAIN <= product and product > 0


#: The blocks at two nodes in a row past which it is asked whether dense rows are faster from there on.
SOME_BLOCKS = 2

#: The time to write rows where they begin and end, in new memory, in nodes that move as many numbers.
ROW_ENDS_NODES = 12


def dense_is_cheaper(blocks: int, nodes: int, first: float, numbers: float) -> bool:
    """Return whether all rows go through nodes faster than many blocks do, one by one.

    All rows take ``first`` numbers at the first of the nodes and ``numbers`` at all of them.
    """
    return NUMBER * (numbers + ROW_ENDS_NODES * first) < 2 * NODE * blocks * nodes


def are_few(columns: int, rows: int) -> bool:
    """Return whether there are far fewer columns than rows."""
    return 0 < columns * TURN_GAIN <= rows


def rows_pay_below(rows: int, columns: int, numbers: int, nodes: int) -> bool:
    """Return whether rows go through some nodes, whose outputs have ``numbers`` numbers, faster than columns do.

    To record a node's formula and take columns through it takes half as long as a walk does at it.
    """
    return NUMBER * (rows - columns) * numbers < NODE / 2 * nodes


#: The calls of PyTorch that a formula makes under vmap, with those around it, and that a product of two blocks makes
FORMULA_CALLS, PRODUCT_CALLS = 20, 3


def terms_pay(products: int, named: int, called: int) -> bool:
    """Return whether products with the terms of a local Jacobian take less time than calling the node on seeds.

    ``named`` and ``called`` are the multiplications of either way, which take as long as writing what they give; the
    kernels behind a call do twice as many in the same time.
    """
    return products * PRODUCT_CALLS * LAUNCH + 2 * NUMBER * named < mapped(FORMULA_CALLS, 0) + NUMBER * called


#: The times that what taps of two windows make is written or read until it is added
MEETING_PASSES = 4


def spread_pays(apart: int, multiplied: int) -> bool:
    """Return whether taps that meet are added in a product, by a matrix of zeros and values, not written ``apart``."""
    return MULTIPLIED * multiplied < MEETING_PASSES * NUMBER * apart


#: The time to match a position by its value, in multiplications.
JOIN_NUMBERS = 32


def joins_pay(named: int, called: int) -> bool:
    """Return the same where the products have to match tables by their positions."""
    return JOIN_NUMBERS * named < called


#: What a call of PyTorch's engine costs beside its calls of nodes, in such calls.
ENGINE_NODES = 8


def nodes_pay(known: int, nodes: int) -> bool:
    """Return whether rows are faster taken through nodes one by one than by PyTorch's engine.

    The engine calls all of them under vmap and was 1.3 to 2 times slower on small tensors; here those that are
    not ``known`` are called under a vmap of their own, which costs more.
    """
    return nodes - known <= known + ENGINE_NODES


#: Up to this many rows, calling the engine once for each costs less than one call under vmap does.
FEW_ROWS = 2


def windows_pay(numbers: int, held: int) -> bool:
    """Return whether all windows of an image may be laid out for one product, with what takes ``held`` numbers."""
    return numbers * 8 <= max(BATCH_BYTES, 8 * held)


#: How many bytes of cotangents may be alive at once in one batched call, beside the answer.
BATCH_BYTES = 64 << 20

#: And where rows go through many nodes of a processor: what one leaves in a core's cache the next one finds there.
#: A chain of pointwise ops takes half the time so, matrix products some per cent more.
CACHE_BYTES = 8 << 20


def rows_at_once(rows: int, widest: int) -> int:
    """Return how many rows to push in one call: a node of ``widest`` numbers and its neighbours are alive together."""
    return max(1, min(rows, BATCH_BYTES // max(1, 4 * 8 * widest)))


def rows_cached(rows: int, mean: float, widest: int) -> int:
    """Return how many rows to push through nodes one after another: of a few wide ones among many a mean tells."""
    return max(1, min(rows, int(CACHE_BYTES // max(1.0, 4 * 8 * (mean * widest) ** 0.5))))


#: The pieces in which rows go where progress is watched, if they move more numbers than can matter.
PIECES = 20
PIECES_NUMBERS = 10_000_000


def rows_watched(size: int, rows: int, numbers: int) -> int:
    """Return how many rows to push in one call where a progress bar is to move between the calls."""
    return min(size, -(-rows // PIECES)) if rows * numbers > PIECES_NUMBERS else size


#: Rows held at one node may take this many bytes, or twice the answer's; wider ones go in chunks.
ROWS_BYTES = 1 << 30


def rows_budget(answer_bytes: int) -> int:
    """Return how many bytes the rows held at one node may take when the answer takes ``answer_bytes``."""
    return max(ROWS_BYTES, 2 * answer_bytes)
