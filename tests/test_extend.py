"""torchjac.extend: rules of one's own, for custom Functions and for ops named by their autograd node."""

import pytest
import torch
from tests.fixtures import structured as structured

from torchjac import explain, extend, jacobian, jacrev, vmap
from torchjac._rules.nnz_estimate import kind_of
from torchjac.testing import check_jacobian, check_rule, loop_jacobian

X = torch.linspace(-1, 2, 6, dtype=torch.float64)


def power(name, exponent):
    """A Function of this name, out = xᵉ, with a backward that can be differentiated and batched."""

    class Power(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x**exponent

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, cotangent):
            (x,) = ctx.saved_tensors
            return exponent * x ** (exponent - 1) * cotangent

        @staticmethod
        def vmap(info, in_dims, x):
            return made.apply(x), in_dims[0]

    made = type(name, (torch.autograd.Function,), {**vars(Power)})
    return made


Cube = power("Cube", 3)


def cube(node):
    """Cube: ∂out[i]/∂x[i′] = δ[i,i′] 3 x[i]², for a tensor of any rank."""
    (x,) = node.fn.saved_tensors
    i = " ".join("ijkl"[: x.dim()])
    return [extend.local(node, 0, i, i, 3 * x**2, on=i)]


@pytest.fixture
def registered():
    """The rule of `Cube`, for one test."""
    extend.rule(Cube)(cube)
    yield
    extend.unregister(Cube)


def test_without_a_rule():
    """Without a rule the answer is right and dense, and the report says why."""
    J = jacobian(Cube.apply)(X)
    torch.testing.assert_close(J.to_dense(), loop_jacobian(Cube.apply, X))
    assert J.stored == 36
    assert J.report.lost


class Turned(torch.autograd.Function):
    """A complex tensor times i, whose cotangent goes by the conjugate."""

    @staticmethod
    def forward(x):
        return 1j * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, cotangent):
        return -1j * cotangent


def test_a_rule_told_nothing_of_complex_numbers():
    """Its multiplier would not commute with conjugation: where its node is complex the backward is called."""
    extend.rule(Turned)(lambda node: [extend.local(node, 0, "i", "i", torch.full(node.shape, 1j), on="i")])
    try:
        f = lambda x: torch.view_as_real(Turned.apply(torch.complex(x, x**2)))
        torch.testing.assert_close(jacobian(f)(X).to_dense(), loop_jacobian(f, X))
    finally:
        extend.unregister(Turned)


@pytest.mark.usefixtures("registered")
def test_custom_function():
    """With a rule the same answer is a diagonal, found without a call of the backward."""
    (J,) = check_rule(Cube.apply, X)
    assert J.stored == 6
    (step,) = explain(Cube.apply)(X).steps
    assert (step.kind, step.calls, step.lost) == ("explicit", 0, "")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("shape", [(0,), (1,), (7,)])
def test_sizes(shape):
    """A rule has no branch for sizes 0 and 1."""
    check_rule(Cube.apply, torch.rand(shape, dtype=torch.float64))


@pytest.mark.usefixtures("registered")
def test_under_vmap():
    """Inside vmap the rule reads the saved tensors of one sample."""
    xs = torch.stack([X, X.flip(0) * 2, X.sin()])
    expected = torch.stack([loop_jacobian(Cube.apply, x) for x in xs])
    torch.testing.assert_close(torch.func.vmap(jacrev(Cube.apply))(xs), expected)
    torch.testing.assert_close(torch.func.vmap(lambda x: jacobian(Cube.apply)(x).to_dense())(xs), expected)


@pytest.mark.usefixtures("registered")
def test_around_vmap():
    """The Jacobian of a vmap of the Function: its own vmap calls it on the batch."""
    f = torch.func.vmap(lambda x: Cube.apply(x).sum())
    xs = torch.stack([X, X.flip(0) * 2])
    torch.testing.assert_close(jacrev(f)(xs), loop_jacobian(f, xs))


@pytest.mark.usefixtures("registered")
def test_second_order():
    """The values that a rule gives are differentiated like any others: 6x on the diagonal of the Hessian."""
    f = lambda x: Cube.apply(x).sum()
    torch.testing.assert_close(jacrev(jacrev(f))(X), torch.diag(6 * X))
    gradient = lambda x: jacobian(f)(x).to_dense()
    torch.testing.assert_close(jacobian(gradient)(X).to_dense(), torch.diag(6 * X))
    torch.testing.assert_close(torch.func.jacfwd(jacrev(lambda x: (x**3).sum()))(X), torch.diag(6 * X))


@pytest.mark.usefixtures("registered")
def test_under_grad():
    """torch.func.grad of a function of the Jacobian goes through the rule's values."""
    found = torch.func.grad(lambda x: jacrev(Cube.apply)(x).sum())(X)
    torch.testing.assert_close(found, 6 * X)


@pytest.mark.usefixtures("registered")
def test_inside_a_program():
    """A rule composes with the others: banded where the program is a stencil."""
    (J,) = check_jacobian(lambda x: Cube.apply(x[1:] - x[:-1]).sin(), X)
    assert (len(J.blocks), J.nnz) == (2, 10)


def test_named_op():
    """A built-in op without a rule gets one by the name of its node; unregistered, it is dense again."""
    f = lambda x: torch.fake_quantize_per_tensor_affine(x, 0.5, 0, 0, 5)
    x = torch.tensor([[0.0, 1.0], [-2.0, 2.5], [4.0, 3.0]])
    name = f(x.clone().requires_grad_()).grad_fn.name()

    @extend.rule(name)
    def fake_quantize(node):
        """Rounding to a few levels, with a gradient between the first and the last: every dim passes."""
        return extend.LocalJacobian(batch_dims={0: ((0, 0), (1, 1))})

    try:
        assert explain(f)(x).steps[0].kind == "independent"
        torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    finally:
        extend.unregister(name)
    assert explain(f)(x).steps[0].kind == "opaque"


def test_rule_that_does_not_apply():
    """A rule that returns None leaves the op to dense rows, for this call only."""

    @extend.rule(Cube)
    def sometimes(node):
        """Cube, of long vectors only."""
        return cube(node) if node.shape[0] > 3 else None

    try:
        assert explain(Cube.apply)(X).steps[0].kind == "explicit"
        assert explain(Cube.apply)(X[:3]).steps[0].kind == "opaque"
        check_rule(Cube.apply, X[:3])
    finally:
        extend.unregister(Cube)


@pytest.mark.usefixtures("registered")
def test_registered_again():
    """A second rule takes the place of the first, as where a notebook's cell is run twice; so does one by name."""
    extend.rule(Cube)(cube)
    assert jacobian(Cube.apply)(X).stored == 6

    @extend.rule(Cube)
    def another(node):
        """Cube, left to calls along the only dim."""
        return extend.LocalJacobian(batch_dims={0: ((0, 0),)})

    assert explain(Cube.apply)(X).steps[0].kind == "independent"
    for rule in (another, cube):
        extend.rule("CubedBackward")(rule)
    try:
        cubed = power("Cubed", 3)
        assert explain(cubed.apply)(X).steps[0].kind == "explicit"
    finally:
        extend.unregister("CubedBackward")


@pytest.mark.usefixtures("registered")
def test_two_of_one_name():
    """Two Functions of one name have a rule each, and a planner takes the name for one that has a rule."""
    square = power("Cube", 2)

    @extend.rule(square)
    def squared(node):
        """Square: ∂out[i]/∂x[i′] = δ[i,i′] 2 x[i]."""
        (x,) = node.fn.saved_tensors
        return [extend.local(node, 0, "i", "i", 2 * x, on="i")]

    try:
        (J,) = check_jacobian(lambda x: Cube.apply(square.apply(x)), X)
        assert J.stored == 6
        assert kind_of("CubeBackward") == "plain"
        extend.unregister(Cube)
        assert explain(Cube.apply)(X).steps[0].kind == "opaque"
        assert explain(square.apply)(X).steps[0].kind == "explicit"
    finally:
        extend.unregister(square)
    assert kind_of("CubeBackward") == "opaque"
    extend.rule(Cube)(cube)


def test_conflict_with_a_built_in():
    """The engine's own rules are not replaced by accident."""
    with pytest.raises(ValueError, match="two rules for MmBackward0: mm and mine"):

        @extend.rule("MmBackward0")
        def mine(node):
            """Another rule."""


def test_unregister_what_is_not_there():
    """Forgetting a rule that there is not is an error that names it."""
    with pytest.raises(KeyError, match="CubeBackward"):
        extend.unregister(Cube)


def test_wrong_rule_is_caught():
    """check_rule finds a rule whose values are wrong, and one whose labels are."""

    @extend.rule(Cube)
    def wrong(node):
        """Cube with a wrong factor."""
        (x,) = node.fn.saved_tensors
        return [extend.local(node, 0, "i", "i", 2 * x**2, on="i")]

    try:
        with pytest.raises(AssertionError, match="Jacobian of argument 0 against the loop"):
            check_rule(Cube.apply, X)
        with pytest.raises(AssertionError, match="Jacobian of argument 0 against the loop"):
            check_jacobian(lambda x: Cube.apply(x.sin()), X)
    finally:
        extend.unregister(Cube)

    @extend.rule(Cube)
    def turned(node):
        """Cube, every entry in the wrong place."""
        (x,) = node.fn.saved_tensors
        i = extend.Label(x.numel())
        place = extend.Affine(x.numel() - 1, ((i, -1),))
        return [extend.Local(0, extend.Block(3 * x**2, (i,), (extend.bare(i),), (place,)))]

    try:
        with pytest.raises(AssertionError, match="against the loop"):
            check_rule(Cube.apply, X)
    finally:
        extend.unregister(Cube)


class Scaled(torch.autograd.Function):
    """out[i, j] = w[j] x[i, j]: two inputs, one of which broadcasts."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, cotangent):
        x, w = ctx.saved_tensors
        return cotangent * w, (cotangent * x).sum(0)


def test_two_inputs():
    """A rule gives a term for each input that is needed, and only those are asked for."""

    @extend.rule(Scaled)
    def scaled(node):
        """Scaled: ∂out[i,j]/∂x[i′,j′] = δ[i,i′] δ[j,j′] w[j], ∂out[i,j]/∂w[j′] = δ[j,j′] x[i,j]."""
        x, w = node.fn.saved_tensors
        terms = [extend.local(node, 0, "i j", "i j", w, on="j")] if node.needs(0) else []
        return terms + ([extend.local(node, 1, "i j", "j", x, on="i j")] if node.needs(1) else [])

    try:
        for rows, columns in ((3, 4), (1, 2), (0, 2), (2, 0)):
            x = torch.randn(rows, columns, dtype=torch.float64)
            w = torch.randn(columns, dtype=torch.float64)
            assert [J.stored for J in check_rule(Scaled.apply, x, w)] == (
                [w.numel(), x.numel()] if x.numel() else [0, 0]
            )
            check_jacobian(lambda x: Scaled.apply(x, w), x)
            check_jacobian(lambda w: Scaled.apply(x, w), w)
    finally:
        extend.unregister(Scaled)


class Layer(torch.autograd.Function):
    """out = c x W, of a tensor, a number and a matrix."""

    @staticmethod
    def forward(ctx, x, c, w):
        ctx.save_for_backward(x, w)
        ctx.c = c
        return c * x @ w

    @staticmethod
    def backward(ctx, cotangent):
        x, w = ctx.saved_tensors
        return ctx.c * cotangent @ w.T, None, ctx.c * x.T @ cotangent


def layer(node, out="b k", wrt="b j", on="j k", value=lambda w: w):
    """The rule of `Layer` that asks for no input whether it is needed, or one with a mistake in it."""
    x, w = node.fn.saved_tensors
    c = node.fn.c
    return [
        extend.local(node, 0, out, wrt, c * value(w), on=on),
        extend.local(node, 1, "b k", "j k", c * x, on="b j"),
    ]


@pytest.fixture
def layers():
    """Rules for `Layer`, which are forgotten after the test."""
    yield extend.rule(Layer)
    extend.unregister(Layer)


@pytest.mark.parametrize("b, j, k", [(2, 3, 4), (1, 3, 4), (3, 1, 1), (0, 2, 3), (2, 0, 3)])
def test_inputs_that_are_not_needed(layers, b, j, k):
    """A rule may give terms of all its inputs: those that nothing is asked of are dropped. Numbers are no inputs."""
    layers(layer)
    x, w = torch.randn(b, j).double(), torch.randn(j, k).double()
    stored = [w.numel(), x.numel()] if b * j * k else [0, 0]
    assert [J.stored for J in check_rule(lambda x, w: Layer.apply(x, 2.0, w), x, w)] == stored
    (J,) = check_jacobian(lambda x: Layer.apply(x, 2.0, w), x)
    assert J.stored == stored[0]


def test_passing_inputs_that_are_not_needed(layers):
    """The same of dims that pass, and of spelled terms."""
    layers(lambda node: extend.LocalJacobian(
        batch_dims={0: ((0, 0),), 1: ((1, 1),)},
        alternatives={0: lambda slot, blocks: extend.spelling(layer(node)[:1])},
    ))  # fmt: skip
    x, w = torch.randn(2, 3).double(), torch.randn(3, 4).double()
    by_x, by_w = check_rule(lambda x, w: Layer.apply(x, 2.0, w), x, w)
    assert (by_x.stored, by_w.stored) == (12, 24)


def test_terms_that_are_not_spelled(layers):
    """A rule may say None of the terms at an output: then the node is called on seeds."""
    layers(lambda node: extend.LocalJacobian(
        batch_dims={0: ((0, 0),), 1: ((1, 1),)}, alternatives={0: lambda slot, blocks: None}
    ))  # fmt: skip
    x, w = torch.randn(2, 3).double(), torch.randn(3, 4).double()
    by_x, by_w = check_rule(lambda x, w: Layer.apply(x, 2.0, w), x, w)
    assert (by_x.stored, by_w.stored) == (24, 24)


@pytest.mark.parametrize(
    "rule, match",
    [
        (lambda node: layer(node, on="k j"), r"the rule <lambda> of LayerBackward has a value of shape \(3, 4\) on "
         r"labels of sizes \(4, 3\)"),
        (lambda node: layer(node, on="j"), r"shape \(3, 4\) on labels of sizes \(3,\)"),
        (lambda node: layer(node, value=lambda w: w[:2]), r"shape \(2, 4\) on labels of sizes \(3, 4\)"),
        (lambda node: layer(node, on="j q"), "local: on='j q' has 'q', which stands in neither 'b k' nor 'b j'"),
        (lambda node: layer(node, out="k b"), r"local: 'b' has two sizes, 4 and 2: 'k b' names the output of shape "
         r"\(2, 4\), 'b j' the input of shape \(2, 3\)"),
        (lambda node: [extend.local(node, 2, "b k", "b j")], "tells of input 2; the op has 2 tensors as inputs"),
        (lambda node: [extend.local(node, 0, "b k", "b j", slot=1)], "local: slot 1 of LayerBackward, which has 1"),
        (lambda node: [layer(node)[0]._replace(slot=1)], "has a term of output 1; the op has 1"),
        (lambda node: "b k", "gave 'b k'; a rule returns a list of what extend.local gives"),
        (lambda node: [(0, 1.0)], "gave .*; a rule returns a list of what extend.local gives"),
        (lambda node: extend.LocalJacobian(batch_dims={0: ((0, 1),)}),
         r"passes output dim 0 to dim 1 of input 0: output \(2, 4\), input \(2, 3\)"),
        (lambda node: extend.LocalJacobian(batch_dims={0: ((2, 0),)}), "passes output dim 2 to dim 0 of input 0"),
        (lambda node: extend.LocalJacobian(batch_dims={3: ()}), "tells of input 3"),
        (lambda node: [extend.Local(0, extend.Block(1.0, (), (extend.constant(0),), (extend.constant(0),) * 2))],
         r"names 1 dims of the output, whose shape is \(2, 4\)"),
        (lambda node: [extend.Local(0, extend.Block(1.0, (), (extend.constant(0), extend.constant(4)),
                                                    (extend.constant(0),) * 2))],
         r"reaches from 4 to 4 in dim 1 of the output, whose shape is \(2, 4\)"),
        (lambda node: [extend.Local(0, shifted(node))], r"reaches from -1 to 1 in dim 1 of the input"),
    ],
)  # fmt: skip
def test_mistakes_are_refused(layers, rule, match):
    """What shapes can tell of a rule's mistakes is refused, with the rule, the op and the sizes."""
    layers(rule)
    x, w = torch.randn(2, 3).double(), torch.randn(3, 4).double()
    for find in (jacobian, jacrev):
        with pytest.raises(ValueError, match=match):
            find(lambda x: Layer.apply(x, 2.0, w))(x)


def shifted(node):
    """A block that begins one before the input's last dim does."""
    b, j = extend.new_labels(node.into(0).shape)
    back = extend.Affine(-1, ((j, 1),))
    return extend.Block(1.0, (), (extend.bare(b), extend.bare(j)), (extend.bare(b), back))


def test_names_are_listed():
    """Everything that rules are written with can be had from `extend`, and is documented."""
    for name in extend.__all__:
        assert getattr(extend, name).__doc__, name


def test_misspelled_rule():
    """A rule that names too few dims is told which, and of what shape the tensor is."""

    @extend.rule(Cube)
    def vector(node):
        """Cube, of vectors."""
        return [extend.local(node, 0, "i", "i")]

    try:
        with pytest.raises(ValueError, match=r"^local: 'i' names 1 dims of a tensor of shape \(2, 3\)$"):
            jacobian(Cube.apply)(X.reshape(2, 3))
    finally:
        extend.unregister(Cube)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["Cube", "Write"])
def test_another_of_the_same_name(name):
    """A rule for a class is not that of another class of its name, be the class with the rule a user's or ours."""
    other = power(name, 2)
    check_jacobian(lambda x: other.apply(x.sin()), X)
    rows = X.reshape(2, 3)
    expected = torch.stack([loop_jacobian(other.apply, row) for row in rows])
    torch.testing.assert_close(vmap(jacrev(other.apply))(rows), expected)
    twice = torch.func.grad(lambda x: jacrev(other.apply)(x).diagonal().sin().sum())(X)
    torch.testing.assert_close(twice, 2 * (2 * X).cos())


@pytest.mark.usefixtures("registered")
def test_rule_of_a_class_inside_functorch():
    """Inside vmap and grad, where functorch makes a class of its own, the rule is found as well."""
    lines = vmap(lambda x: jacobian(Cube.apply)(x).diagonal())(X.reshape(2, 3))
    torch.testing.assert_close(lines, 3 * X.reshape(2, 3) ** 2)
    seen = []

    def loss(x):
        J = jacobian(Cube.apply)(x)
        seen.append(J.stored)
        return J.diagonal().sum()

    torch.testing.assert_close(torch.func.grad(loss)(X), 6 * X)
    assert seen == [6]


def test_bad_ops():
    """What is no op is told so, and what has no rule."""
    with pytest.raises(TypeError, match="rule: name the ops"):
        extend.rule()
    with pytest.raises(TypeError, match=r"got <built-in method sin.*> of type builtin_function_or_method"):
        extend.rule(torch.sin)
    with pytest.raises(KeyError, match="unregister: NothingBackward0 has no rule"):
        extend.unregister("NothingBackward0")


def test_tensors_of_the_rule_are_its_own():
    """A tensor that a rule keeps is never given away: writing into the answer leaves it as it is."""
    kept = torch.rand(3, dtype=torch.float64)
    before = kept.clone()

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return kept * x

        @staticmethod
        def backward(ctx, cotangent):
            return kept * cotangent

    @extend.rule(Scaled)
    def scaled(node):
        return [extend.local(node, 0, "i", "i", kept, on="i")]

    try:
        for transform in (jacobian, jacrev, lambda f: jacobian(f, mode="forward")):
            J = transform(Scaled.apply)(torch.rand(3, dtype=torch.float64))
            for value in [J] if isinstance(J, torch.Tensor) else [block.value for block in J.blocks]:
                value.zero_()
            torch.testing.assert_close(kept, before)
    finally:
        extend.unregister(Scaled)
