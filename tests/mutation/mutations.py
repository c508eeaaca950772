"""Deliberate mistakes: each is one exact replacement in one file of the engine that some test must notice.

The old text stands exactly once in its file. A mistake is one that a person could make: a term dropped, two
labels swapped, a wrong sign, a wrong dim, a position off by one, a special case forgotten.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """In ``file`` (below src/torchjac) the text ``old`` becomes ``new``; ``mistake`` says what that is."""

    file: str
    mistake: str
    old: str
    new: str


MUTATIONS: tuple[Mutation, ...] = (
    # ------------------------------------------------------------------------------------------ along
    Mutation(
        "_rules/independent_dims.py", "batch dims aligned at the left",
        "return tuple((d + lead, d) for d, size in enumerate(into)",
        "return tuple((d, d) for d, size in enumerate(into)",
    ),
    Mutation(
        "_rules/independent_dims.py", "the dim worked along passes too",
        "for d in range(len(shape)) if d not in used)",
        "for d in range(len(shape)))",
    ),
    Mutation(
        "_rules/independent_dims.py", "weight norm: the first dim passes",
        "k: ((dim, dim),) for k in range(2)",
        "k: ((0, 0),) for k in range(2)",
    ),
    Mutation(
        "_rules/independent_dims.py", "affine grid: a wrong dim passes",
        "(len(node.shape) - 1, 1)",
        "(len(node.shape) - 2, 1)",
    ),
    Mutation(
        "_rules/independent_dims.py", "solve: rows and columns swapped",
        'column = 1 if getattr(node.fn, "_saved_left", True) else 2',
        'column = 2 if getattr(node.fn, "_saved_left", True) else 1',
    ),
    Mutation(
        "_rules/independent_dims.py", "eigenvalues taken for a batch",
        '"LinalgEighBackward0": ((1, 2), (2,))',
        '"LinalgEighBackward0": ((0, 2), (2,))',
    ),
    Mutation(
        "_rules/independent_dims.py", "attention: the rows of the key pass",
        "alike.get(k, (0, 1))",
        "alike.get(k, (0, 1, 2))",
    ),
    Mutation(
        "_rules/independent_dims.py", "attention: a row of the value passes, not a feature",
        "2: (0, 1, 3)}",
        "2: (0, 1, 2)}",
    ),
    Mutation(
        "_rules/independent_dims.py", "orthogonal product: rows and columns swapped",
        'rank - 1 if node.saved("left") else rank - 2',
        'rank - 2 if node.saved("left") else rank - 1',
    ),
    Mutation(
        "_rules/independent_dims.py", "least squares: residuals stand where the solution does",
        "others={1: batch_dims(residuals, 0 if vector else 1, 1)}",
        "others={1: batch_dims(residuals, 1 if vector else 2, 1)}",
    ),
    # -------------------------------------------------------------------------------------------- average
    Mutation(
        "_rules/average.py", "windows cut at the edge taken for whole ones",
        "length = end - begin if counted",
        "length = k + 0 * begin if counted",
    ),
    Mutation(
        "_rules/average.py", "windows begin inside the padding",
        "s * first + shift, ((label, s),)",
        "s * first + shift + p, ((label, s),)",
    ),
    Mutation(
        "_rules/average.py", "adaptive windows end too soon",
        "-(-(at + 1) * fine // coarse)",
        "(at + 1) * fine // coarse",
    ),
    # ------------------------------------------------------------------------------------------ bags
    Mutation(
        "_rules/embedding_bag.py", "groups begin one place too early",
        "right=True) - 1)",
        "right=False) - 1)",
    ),
    Mutation(
        "_rules/embedding_bag.py", "segments: lengths taken for beginnings",
        "pad(lengths.cumsum(-1), (1, 0))",
        "pad(lengths, (1, 0))",
    ),
    Mutation(
        "_rules/embedding_bag.py", "bags: the padding row counts",
        'seen = (index != node.saved("padding_idx")).to(dtype)',
        "seen = torch.ones_like(index).to(dtype)",
    ),
    Mutation(
        "_rules/embedding_bag.py", "bags: a mean taken for a sum",
        'if node.saved("mode") == 1:',
        'if node.saved("mode") == 3:',
    ),
    Mutation(
        "_rules/embedding_bag.py", "bags: weights forgotten",
        "seen if weights is None else seen * weights",
        "seen",
    ),
    Mutation(
        "_rules/embedding_bag.py", "bags: an empty one has a maximum",
        "(sizes > 0).to(dtype)",
        "(sizes >= 0).to(dtype)",
    ),
    # ------------------------------------------------------------------------------------------ complexes
    Mutation(
        "_rules/complex_parts.py", "complex: sign of i",
        "factor in enumerate(_factors(node, -1))",
        "factor in enumerate(_factors(node, 1))",
    ),
    Mutation(
        "_rules/complex_parts.py", "view_as_complex: sign of i",
        "k, f in enumerate(_factors(node, -1))",
        "k, f in enumerate(_factors(node, 1))",
    ),
    Mutation(
        "_rules/complex_parts.py", "view_as_real: real and imaginary part swapped",
        "Block(f, (), (*wrt, constant(k)), wrt)",
        "Block(f, (), (*wrt, constant(1 - k)), wrt)",
    ),
    # ------------------------------------------------------------------------------------------ conv
    Mutation(
        "_rules/conv.py", "the channels of the input pass",
        "batch_dims[0] = ((0, 0),)",
        "batch_dims[0] = ((0, 0), (1, 1))",
    ),
    Mutation(
        "_rules/conv_geometry.py", "the last window left out",
        "// self.step + 1, self.coarse)",
        "// self.step, self.coarse)",
    ),
    Mutation(
        "_rules/conv_geometry.py", "the stride forgotten where the fine image begins",
        "dim.step * first + dim.dilate * k",
        "first + dim.dilate * k",
    ),
    Mutation(
        "_rules/conv_geometry.py", "transposed: the images not exchanged",
        '("x", "out") if node.saved("transposed") else ("out", "x")',
        '("out", "x")',
    ),
    Mutation(
        "_rules/conv_geometry.py", "groups taken for one",
        "    if group.size == 1:\n",
        "    if True:\n",
    ),
    Mutation(
        "_rules/conv.py", "the bias stands along the batch",
        "tuple(map(bare, over)), (bare(over[1]),))))",
        "tuple(map(bare, over)), (bare(over[0]),))))",
    ),
    Mutation(
        "_rules/conv.py", "zeros of the padding told as entries",
        "and (summed or not padded)",
        "and True",
    ),
    Mutation(
        "_rules/conv_geometry.py", "the dilation forgotten in the view of all windows",
        "[..., :: dim.dilate]",
        "[..., : dim.kernel]",
    ),
    Mutation(
        "_rules/conv_geometry.py", "the padding of the dims exchanged",
        "for dim in reversed(g.dims) for _ in range(2)",
        "for dim in g.dims for _ in range(2)",
    ),
    # ------------------------------------------------------------------------------------------ windows
    Mutation(
        "_blocks/window_law.py", "taps outside of the tensor go on",
        "if not is_clean and (meetings",
        "if False and (meetings",
    ),
    Mutation(
        "_blocks/compose_windows.py", "zeros of a matrix met by what is infinite",
        "and has_finite_sum(left)",
        "and True",
    ),
    Mutation(
        "_blocks/window_positions.py", "the limits of the tap beyond forgotten",
        "_met_ranges(position, window, [limits] * window.tap.size)",
        "_met_ranges(position, window, [(-99, 99)] * window.tap.size)",
    ),
    Mutation(
        "_blocks/skew.py", "the second tap's steps taken for one",
        "value = _apart(value, other)",
        "value = _apart(value, 1)",
    ),
    Mutation(
        "_rules/conv_geometry.py", "transposed: the kernel read from its beginning",
        "weight = weight.flip(tuple(range(2, weight.dim())))",
        "weight = weight.flip(())",
    ),
    # ------------------------------------------------------------------------------------------ functions
    Mutation(
        "_rules/functions.py", "a dense write: wrong sign",
        "Block(1.0, (), block.out + block.wrt",
        "Block(-1.0, (), block.out + block.wrt",
    ),
    Mutation(
        "_rules/functions.py", "a dense write: labels of the value swapped",
        "tuple(map(bare, block.on))",
        "tuple(map(bare, block.on[::-1]))",
    ),
    # ------------------------------------------------------------------------------------------ gather
    Mutation(
        "_rules/gather.py", "gather along the next dim",
        "maps[dim % len(maps)] = Gather(index, over)",
        "maps[(dim + 1) % len(maps)] = Gather(index, over)",
    ),
    Mutation(
        "_rules/gather.py", "take: negative positions off by one",
        "index + prod(in_shape)",
        "index + prod(in_shape) - 1",
    ),
    Mutation(
        "_rules/gather.py", "indexing: negative positions not wrapped",
        "table = torch.where(table < 0, table + shape[dim], table)",
        "table = table.clamp_min(0)",
    ),
    Mutation(
        "_rules/gather.py", "indexing: index tensors apart taken for neighbours",
        "if dims and dims == list(range(dims[0], dims[-1] + 1)) else 0",
        "if dims else 0",
    ),
    Mutation(
        "_rules/gather.py", "embedding: the padding row alone is kept",
        "factor = (table != padding).to(node.outputs",
        "factor = (table == padding).to(node.outputs",
    ),
    Mutation(
        "_rules/gather.py", "max: the chosen index put at the first dim",
        "picked = picked.unsqueeze(dim)",
        "picked = picked.unsqueeze(0)",
    ),
    # ------------------------------------------------------------------------------------------ links
    Mutation(
        "_rules/nnz_estimate.py", "the second factor counted as the first",
        "side = k - PRODUCTS[node.name]",
        "side = 0",
    ),
    Mutation(
        "_rules/nnz_estimate.py", "an op without a rule taken for one that mixes nothing",
        "return size * inner\n    return max(size, inner)",
        "return size\n    return max(size, inner)",
    ),
    # ------------------------------------------------------------------------------------------ losses
    Mutation(
        "_rules/losses.py", "likelihood: wrong sign",
        "value = -seen.to(node.outputs[0].dtype)",
        "value = seen.to(node.outputs[0].dtype)",
    ),
    Mutation(
        "_rules/losses.py", "likelihood: the mean over entries, not weights",
        "value / -value.sum()",
        "value / seen.sum()",
    ),
    Mutation(
        "_rules/einsum_notation.py", "what moves entries: the backward is not the transpose",
        "swapped(block) if back else block",
        "block",
    ),
    Mutation(
        "_rules/glu.py", "the gate's half where the other stands",
        "return over, [first, (*first[:dim], behind, *first[dim + 1 :])]",
        "return over, [(*first[:dim], behind, *first[dim + 1 :]), first]",
    ),
    Mutation(
        "_rules/glu.py", "the backward does not tell its halves apart",
        "pair if number == 0 else pair[::-1]",
        "pair",
    ),
    Mutation(
        "_rules/products.py", "the entry itself among the others",
        "before(x, dim) * before(x.flip(dim), dim).flip(dim)",
        "before(x, dim) * before(x.flip(dim), dim).flip(dim) * x",
    ),
    Mutation(
        "_rules/products.py", "running product: only the next entries count",
        "step *= 2",
        "step *= 4",
    ),
    Mutation(
        "_rules/angles.py", "wrong sign",
        "-y / r / r",
        "y / r / r",
    ),
    Mutation(
        "_rules/angles.py", "half precision by PyTorch's formula",
        "bits < 32",
        "bits < 16",
    ),
    Mutation(
        "_rules/grid_sample.py", "the backward's taps not swapped",
        "swapped(_by_image(node, shape, image))",
        "_by_image(node, shape, image)",
    ),
    Mutation(
        "_rules/losses.py", "a mean taken for a loss of each entry",
        'return pointwise(node) if node.saved("reduction") == 0 else one_row(node)',
        'return pointwise(node) if node.saved("reduction") != 2 else one_row(node)',
    ),
    Mutation(
        "_rules/losses.py", "temporal classification: time passes",
        "batch_dims={0: ((0, 1),)}",
        "batch_dims={0: ((0, 0),)}",
    ),
    # ------------------------------------------------------------------------------------------ masked
    Mutation(
        "_rules/masked.py", "the mask forgotten where it is read",
        "Block(*_where(node, picked), picked, whole)",
        "Block(1.0, (), picked, whole)",
    ),
    Mutation(
        "_rules/masked.py", "positions outside brought to the first",
        "index.clamp(-size, size - 1)",
        "index.clamp(0, size - 1)",
    ),
    # ------------------------------------------------------------------------------------------ matmul
    Mutation(
        "_rules/matmul.py", "mm: the factors swapped",
        'return _product(node, (0, "i k", "i j", "j k"), (1, "i k", "j k", "i j"), ("mat2", "self"))',
        'return _product(node, (0, "i k", "i j", "j k"), (1, "i k", "j k", "i j"), ("self", "mat2"))',
    ),
    Mutation(
        "_rules/matmul.py", "mm: the first factor transposed",
        'return _product(node, (0, "i k", "i j", "j k"), (1, "i k", "j k", "i j"), ("mat2", "self"))',
        'return _product(node, (0, "i k", "i j", "j k"), (1, "i k", "j k", "j i"), ("mat2", "self"))',
    ),
    Mutation(
        "_rules/matmul.py", "α forgotten in every product",
        "scaled(value, alpha), on=on)",
        "scaled(value, 1.0), on=on)",
    ),
    Mutation(
        "_rules/matmul.py", "β forgotten",
        "diagonal_term(node, 0, float(beta))",
        "diagonal_term(node, 0, 1.0)",
    ),
    Mutation(
        "_rules/matmul.py", "addr: the wrong vector is kept",
        '(2, "i j", "j", "i"), ("vec2", "vec1"))',
        '(2, "i j", "j", "i"), ("vec2", "vec2"))',
    ),
    Mutation(
        "_rules/matmul.py", "a product and sum: α forgotten",
        '_product(node, first, second, names, node.saved("alpha"))',
        '_product(node, first, second, names)',
    ),
    Mutation(
        "_rules/matmul.py", "bilinear: wrong sign",
        "yield k, torch.einsum(left",
        "yield k, -torch.einsum(left",
    ),
    # ------------------------------------------------------------------------------------------ attention
    Mutation(
        "_rules/attention.py", "what each row shares forgotten",
        "b = a - p * a.sum(-1, keepdim=True)",
        "b = a",
    ),
    Mutation(
        "_rules/attention.py", "the scale of the key forgotten",
        "times(b.mT, q * scale)",
        "times(b.mT, q)",
    ),
    Mutation(
        "_rules/attention.py", "a causal mask hides the present",
        ".triu(1)",
        ".triu(0)",
    ),
    # -------------------------------------------------------------------------------------- lstm_backward
    Mutation(
        "_rules/lstm_backward.py", "the slope of tanh taken for that of a sigmoid",
        "i * (1 - g * g)], -2)",
        "i * (1 - g)], -2)",
    ),
    Mutation(
        "_rules/lstm_backward.py", "one of two biases forgotten",
        '(node.saved("weight2") + node.saved("weight3"))',
        'node.saved("weight2")',
    ),
    # ------------------------------------------------------------------------------------------ normalise
    Mutation(
        "_rules/normalise.py", "batch norm in training taken for evaluation",
        "if node.needs(0) and training:",
        "if node.needs(0) and False:",
    ),
    Mutation(
        "_rules/normalise.py", "group norm: the channels pass",
        "affine.batch_dims[0] = ((0, 0),)",
        "affine.batch_dims[0] = ((0, 0), (1, 1))",
    ),
    Mutation(
        "_rules/normalise.py", "the bias doubled",
        "Local(2, Block(1.0, (), self.out, self.channel))",
        "Local(2, Block(2.0, (), self.out, self.channel))",
    ),
    Mutation(
        "_rules/norms.py", "the backward of a layer norm by the weight: the mean is not taken off",
        "device=unit.device) - 1 / n\n",
        "device=unit.device)\n",
    ),
    Mutation(
        "_rules/batched_linalg.py", "rows through a triangle: solved from the wrong end",
        "upper=not upper",
        "upper=upper",
    ),
    Mutation(
        "_rules/batched_linalg.py", "rows through a Cholesky factor: counted twice",
        "factor.mH / 2",
        "factor.mH",
    ),
    Mutation(
        "_rules/batched_products.py", "rows through a scaled product: the scale is lost",
        "scaled = rows if alpha == 1 else rows * alpha.conjugate()",
        "scaled = rows",
    ),
    Mutation(
        "_rules/batched_products.py", "rows through a scaled sum: the scale is lost",
        "[rows if beta == 1 else rows * beta.conjugate(), *factors]",
        "[rows, *factors]",
    ),
    Mutation(
        "_rules/batched_images.py", "rows through a gated unit: the slope of the gate forgotten",
        "scaled * (value * (1 - gate))",
        "scaled * value",
    ),
    Mutation(
        "_rules/batched_images.py", "the channels of a shuffle moved the same way back",
        'groups = node.shape[1] // node.saved("groups")',
        'groups = node.saved("groups")',
    ),
    Mutation(
        "_rules/batched_linalg.py", "eigenvectors: the turned part taken whole",
        "(turned - turned.mT) / (2 * gaps)",
        "turned / gaps",
    ),
    Mutation(
        "_rules/batched_tables.py", "an embedding's padding gets a cotangent",
        "if padding >= 0:",
        "if padding < 0:",
    ),
    Mutation(
        "_rules/products_of_rows.py", "rows that are the same for all matrices: lines taken for matrices",
        "return products.view(count, lines, batch, outer).transpose(1, 2)",
        "return products.view(count, batch, lines, outer)",
    ),
    Mutation(
        "_rules/products_of_rows.py", "rows and matrices of a batch swapped in the product",
        "torch.bmm(joined, factor).view(batch, count, lines, outer).transpose(0, 1)",
        "torch.bmm(joined, factor).view(count, batch, lines, outer)",
    ),
    Mutation(
        "_rules/transposed.py", "a convolution without its stride",
        '("stride", "padding", "dilation", "transposed", "output_padding", "groups")',
        '("dilation", "padding", "dilation", "transposed", "output_padding", "groups")',
    ),
    Mutation(
        "_rules/norm_backward.py", "rows of a group norm's kernel not counted",
        'samples = count * node.saved("N")',
        'samples = node.saved("N")',
    ),
    Mutation(
        "_rules/transposed.py", "a convolution taken for its own transpose",
        '"ConvolutionBackward0" and k == 0:\n        name = "ConvolutionBackwardBackward0"',
        '"ConvolutionBackward0" and k == 0:\n        name = "ConvolutionBackward0"',
    ),
    Mutation(
        "_rules/norms.py", "the mean added",
        "(x - mean) * scale",
        "(x + mean) * scale",
    ),
    Mutation(
        "_rules/norms.py", "batch norm in evaluation: the root not inverted",
        '(node.saved("running_var") + node.saved("eps")).rsqrt()',
        '(node.saved("running_var") + node.saved("eps")).sqrt()',
    ),
    Mutation(
        "_rules/norms.py", "what depends on the spread of x forgotten",
        "h = torch.addcmul(h - self.mean(h), self.unit, self.mean(self.unit * h), value=-1)",
        "h = h - self.mean(h)",
    ),
    Mutation(
        "_rules/norms.py", "the scale recorded as a constant",
        "(variance + (scale.pow(-2) - variance).detach()).rsqrt()",
        "(variance + (scale.pow(-2) - variance)).rsqrt()",
    ),
    Mutation(
        "_rules/norm_backward.py", "the second backward: a term of three dropped",
        "bracket + norm.unit * norm.mean(u * own)",
        "bracket",
    ),
    Mutation(
        "_rules/norm_backward.py", "PyTorch's own formula recorded on a batch",
        "or any(cotangent is not None and is_level_tensor(cotangent)",
        "and any(cotangent is not None and is_level_tensor(cotangent)",
    ),
    Mutation(
        "_rules/norm_backward.py", "the statistics of a group norm left to PyTorch",
        "lambda node: node.reads_others",
        "lambda node: False",
    ),
    Mutation(
        "_rules/norm_backward.py", "the scale of a group norm: its power",
        "norm.scale**2",
        "norm.scale",
    ),
    Mutation(
        "_rules/norm_backward.py", "the weight left out of the second backward",
        "results[0] = norm.weighted(down)",
        "results[0] = down",
    ),
    Mutation(
        "_rules/vjp_support.py", "third derivatives through the graph of the second backward",
        "    **dict.fromkeys(SECOND, ",
        "    **dict.fromkeys((), ",
    ),
    # ------------------------------------------------------------------------------------------ pairs
    Mutation(
        "_rules/pairwise.py", "distances: the same sign for both rows",
        "term(second, -value)",
        "term(second, value)",
    ),
    Mutation(
        "_rules/pairwise.py", "cdist: rows of x and y swapped",
        "enumerate(((first, value), (second, -value)))",
        "enumerate(((second, value), (first, -value)))",
    ),
    # ------------------------------------------------------------------------------------------ pieces
    Mutation(
        "_rules/slice_cat_pad.py", "factors of LU: the diagonal of L is not given",
        "full.tril(-1) if slot == 0",
        "full.tril() if slot == 0",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "slice: a negative start off by one",
        "start + size if start < 0 else start, 0)",
        "start + size - 1 if start < 0 else start, 0)",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "slice: the step forgotten",
        'slice_start(node, full[dim]), node.saved("step"))',
        "slice_start(node, full[dim]))",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "split: each piece begins at the size of the last",
        "at += meta.shape[dim]",
        "at = meta.shape[dim]",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "cat: each input one place too late",
        "sum(sizes[:k]) for k in count",
        "sum(sizes[: k + 1]) for k in count",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "cat: beginnings read with the wrong stride",
        "results[k].storage_offset() // step",
        "results[k].storage_offset()",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "roll: the other way round",
        "_rolled(size, total.get(dim, 0) % size)",
        "_rolled(size, -total.get(dim, 0) % size)",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "pad: before and after swapped",
        "max(-after, 0), 0), cut, max(before, 0)))",
        "max(-after, 0), 0), cut, max(after, 0)))",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "reflection: the edge counted twice",
        "2 * (size - 1) - at",
        "2 * size - 1 - at",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "triangle: lower and upper swapped",
        "(torch.tril if lower",
        "(torch.triu if lower",
    ),
    Mutation(
        "_rules/slice_cat_pad.py", "stack: every input at the first position",
        "swapped(layer(node.into(k).shape, dim, k))",
        "swapped(layer(node.into(k).shape, dim, 0))",
    ),
    # ------------------------------------------------------------------------------------------ pointwise
    Mutation(
        "_rules/pointwise.py", "difference: wrong sign",
        "return _with_alpha(node, -1.0)",
        "return _with_alpha(node, 1.0)",
    ),
    Mutation(
        "_rules/pointwise.py", "sum: α forgotten",
        "_linear(node, 1.0, sign * float(alpha))",
        "_linear(node, 1.0, sign)",
    ),
    Mutation(
        "_rules/pointwise.py", "reversed difference: the two inputs swapped",
        "_linear(node, -float(alpha), 1.0)",
        "_linear(node, 1.0, -float(alpha))",
    ),
    Mutation(
        "_rules/pointwise.py", "product: the factors swapped",
        'enumerate(("other", "self"))',
        'enumerate(("self", "other"))',
    ),
    Mutation(
        "_rules/pointwise.py", "quotient: y for y²",
        '-node.saved("self") * inverse * inverse',
        '-node.saved("self") * inverse',
    ),
    Mutation(
        "_rules/pointwise.py", "negation: wrong sign",
        "return _linear(node, -1.0)",
        "return _linear(node, 1.0)",
    ),
    Mutation(
        "_rules/pointwise.py", "selecting ops multiply",
        'selects=node.name.rpartition("Backward")[0] in SELECTING',
        "selects=False",
    ),
    Mutation(
        "_rules/pointwise.py", "pointwise: only the first output",
        "for slot in range(len(node.outputs)):",
        "for slot in range(1):",
    ),
    # ------------------------------------------------------------------------------------------ pool
    Mutation(
        "_rules/pool.py", "positions in planes of turned sides",
        "*unravel(at, over, shape[planes:])",
        "*unravel(at, over, shape[planes:][::-1])",
    ),
    Mutation(
        "_rules/pool.py", "nearest: the scale forgotten",
        "[fine[dim]], node.saved(name)",
        "[fine[dim]], None",
    ),
    Mutation(
        "_rules/pool.py", "nearest exact: the rule of the inexact",
        'aten._upsample_nearest_exact1d if "Exact" in node.name',
        'aten.upsample_nearest1d if "Exact" in node.name',
    ),
    # ------------------------------------------------------------------------------------------ probe
    Mutation(
        "_rules/probe.py", "bits inverted",
        "self.source += set_.to(torch.int64) << bit",
        "self.source += clear.to(torch.int64) << bit",
    ),
    Mutation(
        "_rules/probe.py", "a part stands at the front",
        "Affine(span.start, ((label, 1),))",
        "Affine(0, ((label, 1),))",
    ),
    Mutation(
        "_rules/probe.py", "entries that mix taken for a re-indexing",
        "self.mixes = bool((clear & set_).any())",
        "self.mixes = False",
    ),
    Mutation(
        "_rules/probe.py", "a factor taken for constant",
        "constant = bool((value == first).all())",
        "constant = True",
    ),
    # ------------------------------------------------------------------------------------------ formula
    Mutation(
        "_rules/registry.py", "a write of a Function taken for linear",
        "return node.name == WRITE_OF_FUNCTION or",
        "return",
    ),
    Mutation(
        "_rules/traced_backward.py", "zeros that drop and zeros that multiply in one block",
        "if drops != local.selects and",
        "if False and",
    ),
    Mutation(
        "_rules/traced_backward.py", "what a fill drops is multiplied",
        "drops or local.selects))",
        "False))",
    ),
    Mutation(
        "_rules/traced_backward.py", "a local Jacobian transposed",
        "swapped(block), selects=drops",
        "block, selects=drops",
    ),
    # ------------------------------------------------------------------------------------------ assign
    Mutation(
        "_rules/view_assignment.py", "a source subtracted is added",
        "sign = -sign if",
        "sign = sign if",
    ),
    Mutation(
        "_rules/view_assignment.py", "a part that was multiplied taken for one that was added to",
        "whole = added is not None and added.sign == 1 and",
        "whole =",
    ),
    Mutation(
        "_rules/view_assignment.py", "a hole with gaps taken for a box",
        "if bool(hole[box].all()):",
        "if True:",
    ),
    Mutation(
        "_rules/view_assignment.py", "more entries than numbers",
        "prod(shape) * torch.finfo(dtype).eps > 0.25",
        "False",
    ),
    Mutation(
        "_rules/strided.py", "a dim that runs over into the next",
        ">= shape[at]:",
        "> 9 * shape[at]:",
    ),
    Mutation(
        "_rules/strided.py", "a hole with gaps is a box",
        "if len(along) > 1 or any(step != 1 for _, step in along):",
        "if len(along) > 1:",
    ),
    # ------------------------------------------------------------------------------------------ recurrent
    Mutation(
        "_rules/recurrent.py", "a layer: steps taken for the batch",
        "return LocalJacobian(batch_dims=batch_dims(1),",
        "return LocalJacobian(batch_dims=batch_dims(0),",
    ),
    Mutation(
        "_rules/recurrent.py", "a layer: the last state as all steps",
        "others={1: batch_dims(0), 2: batch_dims(0)}",
        "others={1: batch_dims(1), 2: batch_dims(1)}",
    ),
    Mutation(
        "_rules/recurrent.py", "packing: steps and sequences swapped",
        'if node.saved("batch_first"):',
        'if not node.saved("batch_first"):',
    ),
    # ------------------------------------------------------------------------------------------ sparse
    Mutation(
        "_rules/sparse.py", "values stand in the order of the columns",
        "for at in x._indices())",
        "for at in x._indices().flip(1))",
    ),
    Mutation(
        "_rules/sparse_factor.py", "rows and columns swapped",
        "zip(on.split(), factor.indices(), strict=True)",
        "zip(on.split(), factor.indices().flip(0), strict=True)",
    ),
    Mutation(
        "_rules/sparse_factor.py", "α forgotten",
        "value if factor == 1 else value * factor",
        "value",
    ),
    Mutation(
        "_rules/sparse.py", "wrong sign",
        "diagonal_term(node, 0, 1.0)",
        "diagonal_term(node, 0, -1.0)",
    ),
    Mutation(
        "_rules/sparse.py", "every entry counts",
        "fit(found, node.into(0))",
        "torch.ones_like(fit(found, node.into(0)))",
    ),
    # ------------------------------------------------------------------------------------------ reduce
    Mutation(
        "_rules/reduce.py", "mean: over all entries",
        "prod(node.shape) / prod(node.into(0).shape)",
        "1 / prod(node.into(0).shape)",
    ),
    Mutation(
        "_rules/reduce.py", "sum: twice",
        "return _reduction(node, 1.0)",
        "return _reduction(node, 2.0)",
    ),
    Mutation(
        "_rules/reduce.py", "norm: the subgradient at 0 always multiplies",
        "[term._replace(selects=drops) for term in _reduction(node, None)]",
        "_reduction(node, None)",
    ),
    Mutation(
        "_rules/reduce.py", "norm: the subgradient at 0 always drops",
        "[term._replace(selects=drops) for term in _reduction(node, None)]",
        "[term._replace(selects=True) for term in _reduction(node, None)]",
    ),
    Mutation(
        "_rules/reduce.py", "two reductions: both take the first cotangent",
        "for term in _reduction(node, None, slot)]",
        "for term in _reduction(node, None, 0)]",
    ),
    # ------------------------------------------------------------------------------------------ front
    Mutation(
        "_rules/batched_tables.py", "a source that is added is not scaled",
        "read if alpha == 1 else read * alpha",
        "read",
    ),
    Mutation(
        "_rules/batched_tables.py", "what a scatter wrote over keeps its cotangent",
        "kept = rows if adds or not node.needs(0) else rows.scatter(dim, table, 0)",
        "kept = rows",
    ),
    Mutation(
        "_rules/batched_parts.py", "two cotangents of one part: the second alone",
        "waiting.rows[part] = rows if other is None else other + rows",
        "waiting.rows[part] = rows",
    ),
    Mutation(
        "_rules/batched_parts.py", "what waited before the parts is forgotten",
        "return whole if before is None else before + whole",
        "return whole",
    ),
    Mutation(
        "_rules/batched_assign.py", "a source counts once, whatever it was multiplied with",
        "found[k] = part if k == 0 or block.value == 1 else part * block.value",
        "found[k] = part",
    ),
    Mutation(
        "_rules/batched_assign.py", "what was written over keeps its cotangent",
        "found[0] = rows.masked_fill(written, 0)",
        "found[0] = rows",
    ),
    Mutation(
        "_rules/conv_input.py", "the weight is not turned",
        "turned = turned.flip(list(range(2, 2 + rank)))",
        "turned = turned.clone()",
    ),
    Mutation(
        "_rules/conv_input.py", "windows that hang over the edge are taken for whole",
        "margin = [d * (k - 1) - p for",
        "margin = [d * (k - 1) for",
    ),
    # ------------------------------------------------------------------------------------------ shuffle
    Mutation(
        "_rules/pixel_shuffle.py", "pixel shuffle: parts of a side swapped",
        "_joined(h, i), _joined(w, j)",
        "_joined(i, h), _joined(w, j)",
    ),
    Mutation(
        "_rules/pixel_shuffle.py", "channel shuffle: no shuffle",
        "(first, _joined(i, k), *last)",
        "(first, _joined(k, i), *last)",
    ),
    Mutation(
        "_rules/pixel_shuffle.py", "windows: padding the wrong way",
        "at = stride * first + dilation * tap - padding",
        "at = stride * first + dilation * tap",
    ),
    Mutation(
        "_rules/pixel_shuffle.py", "windows: kernel sides swapped",
        'kernel = node.saved("kernel_size")[1]',
        'kernel = node.saved("kernel_size")[0]',
    ),
    # ------------------------------------------------------------------------------------------ views
    Mutation(
        "_rules/views.py", "reshape: strides of the whole tensor",
        "(label, cut // step) for cut, label",
        "(label, cut) for cut, label",
    ),
    Mutation(
        "_rules/views.py", "permute: the inverse order",
        "    for map_, dim in zip(out, order, strict=True):\n        wrt[dim] = map_",
        "    for k, dim in enumerate(order):\n        wrt[k] = out[dim]",
    ),
    Mutation(
        "_rules/views.py", "repeat: copies interleaved",
        "(Label(times), label.size),)",
        "(Label(times), 1),)",
    ),
    Mutation(
        "_rules/views.py", "diagonal: above and below swapped",
        "Affine(max(-offset, 0), ((over[-1], 1),)) if dim == first",
        "Affine(max(offset, 0), ((over[-1], 1),)) if dim == first",
    ),
    Mutation(
        "_rules/views.py", "windows: step forgotten",
        "((over[dim], step), (over[-1], 1))",
        "((over[dim], 1), (over[-1], 1))",
    ),
    # ------------------------------------------------------------------------------------------ writes
    Mutation(
        "_rules/scatter.py", "what was overwritten is kept",
        "spread((~hole).to(",
        "spread(hole.to(",
    ),
    Mutation(
        "_rules/strided.py", "what lies behind a box dropped",
        "for start, stop in ((window[dim].start, part.start), (part.stop, window[dim].stop)):",
        "for start, stop in ((window[dim].start, part.start),):",
    ),
    Mutation(
        "_rules/scatter.py", "index add: α forgotten",
        "Block(float(alpha), (), whole, picked)",
        "Block(1.0, (), whole, picked)",
    ),
    Mutation(
        "_rules/scatter.py", "index put: what was added to is forgotten",
        "return _all_kept(node) + source",
        "return source",
    ),
    Mutation(
        "_rules/scatter.py", "put: negative positions not wrapped",
        "index = torch.where(index < 0, index + size, index)",
        "index = index.clamp_min(0)",
    ),
    Mutation(
        "_rules/scatter.py", "diagonal scatter: the diagonal next to it",
        "hole.diagonal(offset, first, second)",
        "hole.diagonal(offset + 1, first, second)",
    ),
    Mutation(
        "_rules/scatter.py", "a source that broadcasts is read along the dim",
        "map_ if size != 1 or not map_.labels or map_.labels[0].size == 1 else constant(0)",
        "map_",
    ),
    # ------------------------------------------------------------------------------------------ cross
    Mutation(
        "_rules/cross.py", "what stands below the diagonal reads the other end",
        "torch.cat([third, first], back)",
        "torch.cat([first, third], back)",
    ),
    Mutation(
        "_rules/cross.py", "both corners of one sign",
        "torch.cat([-second, second], back)",
        "torch.cat([second, second], back)",
    ),
    # ------------------------------------------------------------------------------------------ grid_sample
    Mutation(
        "_rules/grid_sample.py", "width and height swapped",
        "points[..., rank - 1 - d]",
        "points[..., d]",
    ),
    Mutation(
        "_rules/grid_sample.py", "what is outside weighs something",
        "return at, torch.where(inside, weight, 0)",
        "return at, weight",
    ),
    # ------------------------------------------------------------------------------------------ index_backward
    Mutation(
        "_rules/index_backward.py", "the zeros stand in front",
        "for size in (whole - own, 0)]",
        "for size in (0, whole - own)]",
    ),
    Mutation(
        "_rules/index_backward.py", "the padding row gets a gradient",
        'rows = rows.masked_fill((ids == node.saved("padding_idx")).unsqueeze(-1), 0)',
        "rows = rows * 1",
    ),
    # ------------------------------------------------------------------------------------------ reduce_by_index
    Mutation(
        "_rules/reduce_by_index.py", "the mean of the source alone",
        "own = torch.ones_like(self.into) if self.includes_self else None",
        "own = None",
    ),
    Mutation(
        "_rules/reduce_by_index.py", "a product with two zeros has no slope of its own",
        "torch.where(count == 2, rest - s, 0)",
        "torch.where(count == 2, 0, 0)",
    ),
    # ------------------------------------------------------------------------------------------ resample
    Mutation(
        "_rules/resample.py", "the cubic filter of the antialiased one",
        "a: float = -0.75",
        "a: float = -0.5",
    ),
    Mutation(
        "_rules/resample.py", "pixels begin at their corner",
        "at = at * step if corners else (at + 0.5) * step - 0.5",
        "at = at * step",
    ),
    # ------------------------------------------------------------------------------------------ scan
    Mutation(
        "_rules/scan.py", "the scanned dim passes",
        "for d in range(rank) if d != dim])}",
        "for d in range(rank)])}",
    ),
    Mutation(
        "_rules/scan.py", "the triangle is the other one",
        "at_most(bare(inner), bare(over[dim]))",
        "at_most(bare(over[dim]), bare(inner))",
    ),
    # ------------------------------------------------------------------------------------------ sparse_ops
    Mutation(
        "_rules/sparse_ops.py", "softmax: the factor of the other entry",
        "values[e] * (same - values[f])",
        "values[f] * (same - values[f])",
    ),
    Mutation(
        "_rules/sparse_ops.py", "the groups are those of the dim itself",
        "group if other == dim else",
        "group if other != dim else",
    ),
    # ------------------------------------------------------------------------------------------ angles
    Mutation(
        "_rules/angles.py", "the slopes by the two sides exchanged",
        "factors = x / r / r, -y / r / r",
        "factors = -y / r / r, x / r / r",
    ),
    Mutation(
        "_rules/angles.py", "the origin divides by zero",
        "torch.hypot(y, torch.where(at_origin, 1, x))",
        "torch.hypot(y, x)",
    ),
    # ------------------------------------------------------------------------------------------ determinant
    Mutation(
        "_rules/determinant.py", "the sign of the two turns forgotten",
        "return sign * left * others(",
        "return left * others(",
    ),
    Mutation(
        "_rules/determinant.py", "the inner direction not transposed",
        "- rest * inner.mT)",
        "- rest * inner)",
    ),
    Mutation(
        "_rules/determinant.py", "singular values between the two left out",
        "* between * behind",
        "* behind",
    ),
    Mutation(
        "_rules/determinant.py", "one singular matrix of a batch not seen",
        "bool((value == 0).any())",
        "bool((value == 0).all())",
    ),
    # ------------------------------------------------------------------------------------------ glu
    Mutation(
        "_rules/glu.py", "the gates stand where the values do",
        "behind = Affine(shape[dim], (",
        "behind = Affine(0, (",
    ),
    Mutation(
        "_rules/glu.py", "backward: how the slope of the gate depends on the value left out",
        "(number or other):",
        "other:",
    ),
    # ------------------------------------------------------------------------------------------ products
    Mutation(
        "_rules/products.py", "what stands behind an entry not multiplied",
        "return before(x, dim) * before(x.flip(dim), dim).flip(dim)",
        "return before(x, dim)",
    ),
    Mutation(
        "_rules/products.py", "running product: the product up to the next one not renewed",
        "[factor * following.narrow(dim, step, rest), following",
        "[following.narrow(dim, step, rest), following",
    ),
    # ------------------------------------------------------------------------------------------ safe_backward
    Mutation(
        "_rules/safe_backward.py", "distances: the power not lowered",
        "** (p - 1)",
        "** p",
    ),
    Mutation(
        "_rules/safe_backward.py", "distances: every feature is the largest",
        "sign * (gap.abs() == distance)",
        "sign",
    ),
    Mutation(
        "_rules/safe_backward.py", "norms: each of equal largest entries has all of it",
        " / ends.sum(list(dims), keepdim=True)",
        "",
    ),
    Mutation(
        "_rules/safe_backward.py", "zeros divided by",
        "value / divisor.masked_fill(divisor == 0, math.inf)",
        "value / divisor",
    ),
    Mutation(
        "_rules/safe_backward.py", "differences: the same sign for both",
        "-found if node.needs(1) else None",
        "found if node.needs(1) else None",
    ),
    Mutation(
        "_rules/safe_backward.py", "renorm: how the norm changes forgotten",
        "limit / (n + 1e-7) ** 2, 0)",
        "0 * n, 0)",
    ),
    Mutation(
        "_rules/safe_backward.py", "sinc: a coefficient of the series",
        "square * (1 / 30 -",
        "square * (1 / 20 -",
    ),
    Mutation(
        "_rules/safe_backward.py", "power: 0 to the power 0 has a slope",
        "flat = (x == 0) & (e == 0)",
        "flat = (x == 0) & (e < 0)",
    ),
    Mutation(
        "_rules/safe_backward.py", "losses: the mean taken for the sum",
        "value = value / gap.numel()",
        "value = value / 1",
    ),
    Mutation(
        "_rules/safe_backward.py", "logit: a slope beyond the bounds",
        "(x < eps) | (x > 1 - eps)",
        "(x < eps)",
    ),
    # ------------------------------------------------------------------------------------------ what rules share
    Mutation(
        "_rules/einsum_notation.py", "a broadcast dim is read along the output",
        "bare(label) if label.size == size else ZERO",
        "bare(label)",
    ),
    Mutation(
        "_rules/einsum_notation.py", "labels aligned at the left",
        "    over = over[len(over) - value.dim() :]\n    dim = 0",
        "    over = over[: value.dim()]\n    dim = 0",
    ),
    Mutation(
        "_rules/vjp_support.py", "cdist called on a batch",
        '"CdistBackward0": "silently wrong',
        '"CdistBackward9": "silently wrong',
    ),
    Mutation(
        "_rules/call.py", "results averaged over broadcast dims",
        "result = result.sum_to_size(shape)",
        "result = result.sum_to_size(shape) / 2",
    ),
    Mutation(
        "_accumulate/dense_columns.py", "a tangent that met an infinite factor is kept",
        "if not all(columns is None or is_finite(columns) for columns in found):",
        "if False:",
    ),
    Mutation(
        "_accumulate/tape_costs.py", "the graph of a Python Function's backward is trusted",
        "node.is_python or node.touches_complex for node",
        "node.touches_complex for node",
    ),
    Mutation(
        "_accumulate/reverse.py", "the engine asked for two tensors of which one leads to the other",
        "if tape.inputs_apart and _goes_by_engine(rest):",
        "if _goes_by_engine(rest):",
    ),
    Mutation(
        "_capture/capture.py", "batch dims added around what a level of grad wrapped",
        "zero = plain(torch.zeros(", "zero = (torch.zeros(",
    ),
    Mutation(
        "_rules/view_assignment.py", "a tensor written into taken to lie in order",
        "tuple(given.shape), whole.stride())", "tuple(given.shape), given.stride())",
    ),
    Mutation(
        "_rules/strided.py", "gaps between entries not looked at",
        "return digits if number == 0 else None", "return digits",
    ),
    Mutation(
        "_rules/strided.py", "entries that stand on one another not looked at",
        "if lies[dim] < within:", "if False:",
    ),
    Mutation(
        "_rules/call.py", "gradients of weights formed on the way",
        "if _are_apart(node, wanted):",
        "if False:",
    ),
    Mutation(
        "_rules/call.py", "a tensor that is image and weight gets both gradients twice",
        "len(wanted) < len(edges) == len(set(edges))",
        "len(wanted) < len(edges)",
    ),
    Mutation(
        "_capture/beneath_vmap.py", "samples are not summed",
        "return [output.sum(dims, dtype=output.dtype) if dims else output for output, dims in pairs]",
        "return [output for output, dims in pairs]",
    ),
    Mutation(
        "_capture/beneath_vmap.py", "levels in the order in which they are met",
        "levels = tuple(sorted(found))",
        "levels = tuple(found)",
    ),
    Mutation(
        "_capture/vmap_levels.py", "batch dims last",
        "order = batch + dims",
        "order = dims + batch",
    ),
    Mutation(
        "_capture/read_tape.py", "tensors without entries on the tape",
        "return (found, slot) if full else None",
        "return (found, slot)",
    ),
    Mutation(
        "_capture/read_tape.py", "any reshape does nothing",
        "if below.outputs[slot] == meta:",
        "if below.numel == node.numel:",
    ),
    Mutation(
        "_capture/tape.py", "how nodes are joined left out of a make",
        "found += [None if edge is None else (number[edge[0]], edge[1]) for edge in node.inputs]",
        "found += [None for edge in node.inputs]",
    ),
    Mutation(
        "_capture/graph.py", "how nodes are joined left out of a signature",
        "key: list[Hashable] = [*graph.edges, *graph.ends]",
        "key: list[Hashable] = [*graph.ends]",
    ),
    Mutation(
        "_capture/graph.py", "saved numbers left out of a signature",
        "read = attrgetter(*saved) if saved else None",
        "read = None",
    ),
    Mutation(
        "_plan/steps.py", "shapes of saved tensors not looked at",
        "value.shape != self.shape",
        "False",
    ),
    Mutation(
        "_plan/steps.py", "entries of an index table not looked at",
        "if value is None or not value.equal(self.table):",
        "if value is None:",
    ),
    Mutation(
        "_plan/registers.py", "what was written in place taken for what was there before",
        "            if written is None:\n                return None",
        "            if written is None:\n                written = _NO_TABLES",
    ),
    Mutation(
        "_plan/recorder.py", "a mask taken for a tensor like any other",
        "self.look_at(_masks(func, args))",
        "self.look_at([])",
    ),
    Mutation(
        "_plan/program.py", "memory that is given away kept for the next run",
        "    given = {registers[at].memory for at in outputs}",
        "    given: set[int] = set()",
    ),
    Mutation(
        "_plan/program.py", "what is the same at each run not written into memory that is new",
        "if register in fixed and (writes is None or writes in fixed):",
        "if register in fixed:",
    ),
    Mutation(
        "_accumulate/seeds.py", "positions that two labels meet at ride along",
        "return type(map_) is Affine and (len(map_.terms) < 2 or stands_for_one(map_))",
        "return type(map_) is Affine",
    ),
    Mutation(
        "_rules/registry.py", "multipliers taken for good with complex numbers",
        "if not found.any_dtype and known.locals and node.touches_complex:",
        "if False:",
    ),
    # ------------------------------------------------------------------------------------------ plan
    Mutation(
        "_plan/cache.py", "the entry used last goes first",
        "popitem(last=False)",
        "popitem(last=True)",
    ),
    Mutation(
        "_plan/cache.py", "reading does not count as use",
        "self.entries.move_to_end(key)",
        "pass",
    ),
    Mutation(
        "_plan/cache.py", "what went is not taken off what is held",
        "held -= self.entries.popitem(last=False)[1].bytes",
        "self.entries.popitem(last=False)",
    ),
    Mutation(
        "_plan/number.py", "numbers behind an operator taken for those in front",
        "(*others, self) if turned else (self, *others)",
        "(self, *others)",
    ),
    # ------------------------------------------------------------------------------------------ capture
    Mutation(
        "_capture/graph.py", "kinds of nodes left out of a signature",
        "append(kind)",
        "pass",
    ),
    Mutation(
        "_capture/graph.py", "nobody else asks for gradients",
        "graph.foreign = True",
        "pass",
    ),
    Mutation(
        "_capture/deletion.py", "the last of several paths counts",
        "deepest = max(deepest, nested.get(node, 0))",
        "deepest = nested.get(node, 0)",
    ),
    # ------------------------------------------------------------------------------------------ blocks
    Mutation(
        "_blocks/block.py", "blocks that lack a label taken for dense",
        "return len(seen) == len(maps) and len(block.on) == len(maps)",
        "return len(seen) == len(maps)",
    ),
    Mutation(
        "_blocks/compose.py", "free labels summed as if there were one",
        "        left = left * times",
        "        pass",
    ),
    Mutation(
        "_blocks/multiply.py", "a constant multiplier forgotten",
        "return total if type(one) is float and one == 1.0 else total * one",
        "return total",
    ),
    Mutation(
        "_blocks/multiply.py", "labels not aligned",
        "tensor = tensor.permute(order)\n        if outer",
        "pass\n        if outer",
    ),
    Mutation(
        "_blocks/multiply.py", "a turned product summed over the wrong dims",
        "dims = (how.other_dims, how.dims) if how.turned else (how.dims, how.other_dims)",
        "dims = (how.dims, how.other_dims)",
    ),
    Mutation(
        "_blocks/multiply.py", "labels that both keep are summed",
        "if set(on_left) & set(on_right) == set(summed):",
        "if summed:",
    ),
    Mutation(
        "_blocks/maps.py", "where windows begin forgotten",
        "value.narrow(dim, start, step * (count - 1) + size)",
        "value.narrow(dim, 0, step * (count - 1) + size)",
    ),
    Mutation(
        "_blocks/write.py", "digits that leave positions out taken for all",
        "if prod([label.size for label in digits]) != size or bool(digits) is not bool(map_.terms):",
        "if bool(digits) is not bool(map_.terms):",
    ),
    Mutation(
        "_rules/einsum_notation.py", "a term that sums taken for one that scales",
        " and over.keys() <= labels_of(wrt).keys()",
        "",
    ),
    Mutation(
        "_rules/pointwise.py", "a power to the power itself",
        "x.pow(exponent - 1)",
        "x.pow(exponent)",
    ),
    Mutation(
        "_blocks/dropped_zeros.py", "zeros that select multiply",
        "product.masked_fill_(value == 0, 0)",
        "pass",
    ),
    Mutation(
        "_blocks/compose.py", "laws of other labels looked up",
        "key = (out, mid, on_left, other, wrt, on_right)",
        "key = (out, mid, len(on_left), other, wrt, len(on_right))",
    ),
    Mutation(
        "_blocks/compose.py", "labels that two laws share kept in both",
        "    if not by:\n        return local.out",
        "    if True:\n        return local.out",
    ),
    Mutation(
        "_blocks/coordinates.py", "entries named twice count once",
        "index_add(0, back, flat)",
        "index_copy(0, back, flat)",
    ),
    Mutation(
        "_blocks/coordinates.py", "entries named twice not seen",
        "return window_of(block, tuple(shape)) is not None",
        "return True",
    ),
    Mutation(
        "_blocks/dense_views.py", "positions along dims in the other order",
        "return found[::-1]",
        "return found",
    ),
    Mutation(
        "_blocks/coo_product.py", "rows of a sparse product counted by its rows",
        "block_at(row * columns + column,",
        "block_at(row * rows + column,",
    ),
    Mutation(
        "_blocks/coo_product.py", "a sparse product without derivatives",
        "return not recorded and values.dtype in",
        "return values.dtype in",
    ),
    Mutation(
        "_blocks/table_product.py", "tables of several dims matched one by one",
        "if len(hard) > 1:",
        "if len(hard) > 9:",
    ),
    Mutation(
        "_blocks/maps.py", "a substituted offset not scaled",
        "map_[0] + stride * only[0], tuple",
        "map_[0] + only[0], tuple",
    ),
    Mutation(
        "_blocks/maps.py", "a turned progression begins at the other end",
        "start, stride = label.size - 1 - start, -stride",
        "start, stride = start, -stride",
    ),
    Mutation(
        "_blocks/maps.py", "dims of a permuted value left in place",
        "value = value.permute(order)\n",
        "pass\n",
    ),
    Mutation(
        "_blocks/maps.py", "a label that stands twice reads the row",
        "steps.append((Tensor.diagonal, (0, first, second)))",
        "steps.append((lambda t, a, b: t.select(a, 0).movedim(b - 1, -1), (first, second)))",
    ),
    Mutation(
        "_blocks/spelling.py", "maps told apart without strides",
        "key.append((number.setdefault(label, len(number)), label.size, step))",
        "key.append((number.setdefault(label, len(number)), label.size))",
    ),
    Mutation(
        "_blocks/spelling.py", "maps told apart without offsets",
        "            key.append(map_.offset)\n",
        "",
    ),
    Mutation(
        "_blocks/merge.py", "values added without alignment",
        "return align(first.value, first.on, over) + align(b, on, over), over",
        "return align(first.value, first.on, over) - align(b, on, over), over",
    ),
    Mutation(
        "_blocks/coalesce_diagonals.py", "offsets along a line forgotten",
        "        key.append(offset)\n",
        "",
    ),
    Mutation(
        "_blocks/coalesce_diagonals.py", "gaps are filled",
        "    if high - low > a.sizes[k] + b.sizes[k]:\n        return None\n",
        "",
    ),
    Mutation(
        "_blocks/coalesce_diagonals.py", "corners are filled",
        "    if len(apart) > 1:\n        return None\n    (k,) = apart\n",
        "    k = apart[0]\n",
    ),
    Mutation(
        "_blocks/coalesce_diagonals.py", "a part stands where the box begins",
        "window = window.narrow(dim, one.starts[k] - box.starts[k], sizes[dim])",
        "window = window.narrow(dim, 0, sizes[dim])",
    ),
    Mutation(
        "_blocks/unify.py", "a table: positions between two steps count",
        "fits = (found * stride == shift) & ",
        "fits = ",
    ),
    Mutation(
        "_blocks/unify.py", "two progressions: the last meeting dropped",
        "high - low + 1",
        "high - low",
    ),
    Mutation(
        "_blocks/unify.py", "two progressions: offsets the wrong way",
        "j0 = (sa * i0 + a.offset - b.offset) // sb",
        "j0 = (sa * i0 - a.offset + b.offset) // sb",
    ),
    Mutation(
        "_blocks/unify.py", "a position outside the range counts",
        "if rest == 0 and 0 <= at < label.size else None",
        "if rest == 0 else None",
    ),
    Mutation(
        "_blocks/unify.py", "tables: a position covered twice taken for once",
        "        if not torch.equal(back[at], torch.arange(at.numel(), device=device)):\n            continue\n",
        "",
    ),
    Mutation(
        "_blocks/dense_views.py", "strides that meet taken for apart",
        "if size > 1 and step <= reach:",
        "if size > 1 and step < reach:",
    ),
    Mutation(
        "_blocks/dense_views.py", "windows that meet taken for apart",
        "numpy.unique(positions).size == positions.size",
        "True",
    ),
    Mutation(
        "_blocks/write.py", "the second block written over the first",
        "view.add_(value)",
        "view.copy_(torch.as_tensor(value))",
    ),
    Mutation(
        "_blocks/write.py", "a read of a write: labels without values averaged",
        "value = value.sum(extra) if extra else value",
        "value = value.mean(extra) if extra else value",
    ),
    Mutation(
        "_blocks/block.py", "a label over a part taken for one over a whole dim",
        "return sizes == list(shape) and len(set(over)) == len(over)",
        "return len(set(over)) == len(over)",
    ),
    Mutation(
        "_blocks/cost.py", "pieces that tile the dense Jacobian stay apart",
        "return sum(map(stored, blocks)) >= prod(out_shape)",
        "return sum(map(stored, blocks)) > prod(out_shape)",
    ),
    Mutation(
        "_rules/batched_formulas.py", "a result made without the cotangents is taken for rows",
        "return results if have_shape(results, (count, *node.shape)) else None",
        "return results",
    ),
    Mutation(
        "_rules/batched_formulas.py", "dims are not counted behind the rows",
        "% max(rank, 1) + 1",
        "% max(rank, 1)",
    ),
    Mutation(
        "_rules/batched_vjp.py", "rows of a later output taken for those of the first",
        "given[slot] = row",
        "given[0] = row",
    ),
    Mutation(
        "_rules/batched_vjp.py", "of two ways to one tensor the last counts",
        "pending[edge] = result if other is None else other + result",
        "pending[edge] = result",
    ),
    Mutation(
        "_rules/batched_formulas.py", "the first entry is selected, whichever was",
        'rows.select(dim_of(node, "dim", len(node.shape)), node.saved("index"))',
        'rows.select(dim_of(node, "dim", len(node.shape)), 0)',
    ),
    Mutation(
        "_rules/batched_formulas.py", "each part of a cat begins at its front",
        "rows.narrow(dim + 1, start,",
        "rows.narrow(dim + 1, 0,",
    ),
    Mutation(
        "_accumulate/value_cotangents.py", "values called on in the order in which they lie",
        "value = value.permute(order)",
        "value = value.reshape([value.shape[dim] for dim in order])",
    ),
    Mutation(
        "_transforms/dense.py", "what is lent is handed out, dense",
        "answer = answer.clone()",
        "pass",
    ),
    Mutation(
        "_capture/own_batches.py", "losses of a batch put together by one law for each reduction",
        "return each.mean(1) if reduction == _MEAN else each.sum(1)",
        "return each.mean(1)",
    ),
    Mutation(
        "_accumulate/ownership.py", "what is lent is handed out",
        "isinstance(value, Tensor) and memory_of(value) in borrowed",
        "False",
    ),
)  # fmt: skip
