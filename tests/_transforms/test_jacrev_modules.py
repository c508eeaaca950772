"""Modules as people use them: training mode, dropout, attention, recurrence, checkpoints, hooks, modes."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from torchjac import functional_call, jacobian, jacrev, vmap
from torchjac.testing import finite_differences, loop_jacobian

pytestmark = [
    pytest.mark.usefixtures("way"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]


def seeded(f):
    """The function with its random numbers drawn anew from the same seed at each call."""

    def again(*args):
        torch.manual_seed(5)
        return f(*args)

    return again


def _conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2, 3, 2, stride=2, padding=1),
        nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
    )  # fmt: skip


#: name → (module, shape of the input)
MODULES = {
    "linear": (lambda: nn.Linear(3, 2), (4, 3)),
    "MLP": (lambda: nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 2), nn.Softmax(-1)), (4, 3)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh()), (4, 3)),
    "all norms": (
        lambda: nn.Sequential(
            nn.GroupNorm(2, 4), nn.InstanceNorm1d(4, affine=True), nn.LayerNorm(3), nn.RMSNorm(3)),
        (2, 4, 3),
    ),
    "convolutions": (_conv_net, (2, 1, 7, 7)),
    "transposed convolution": (lambda: nn.ConvTranspose1d(2, 3, 2, stride=2, groups=1), (2, 2, 3)),
    "bilinear": (lambda: Twice(nn.Bilinear(4, 4, 2)), (3, 4)),
    "transformer encoder layer": (
        lambda: nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.0, batch_first=True), (2, 3, 4),
    ),
    "transformer encoder layer, norm first, gelu": (
        lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", norm_first=True),
        (3, 2, 4),
    ),
    "attention": (lambda: SelfAttention(), (2, 3, 4)),
    "LSTM": (lambda: First(nn.LSTM(3, 4, num_layers=2, batch_first=True)), (2, 3, 3)),
    "bidirectional LSTM": (lambda: First(nn.LSTM(2, 3, bidirectional=True)), (3, 1, 2)),
    "GRU": (lambda: First(nn.GRU(3, 4)), (3, 2, 3)),
    "RNN": (lambda: First(nn.RNN(3, 4, nonlinearity="relu")), (3, 2, 3)),
    "LSTM cell": (lambda: First(nn.LSTMCell(3, 4)), (2, 3)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), (4, 3)),
    "spectral norm in evaluation": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).eval(), (4, 3),
    ),
}  # fmt: skip


class First(nn.Module):
    """The first output of a module."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


class Twice(nn.Module):
    """A module of two arguments given one tensor twice."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, x)


class SelfAttention(nn.Module):
    """nn.MultiheadAttention of a tensor with itself, its weights not asked for."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


def _module(name):
    make, shape = MODULES[name]
    torch.manual_seed(1)
    return make(), torch.randn(shape)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", MODULES)
def test_module(name, mode, agrees):
    """The Jacobian with respect to the input is the loop's, in both modes."""
    net, x = _module(name)
    net.train(mode == "train" and "evaluation" not in name)
    agrees(net, x, torch_works=False)


@pytest.mark.parametrize(
    "name", ["batch norm", "convolutions", "transformer encoder layer", "GRU", "all norms"]
)
def test_parameters(name):
    """The Jacobians with respect to all parameters, as a dict, are the loop's."""
    net, x = _module(name)
    params = {key: p.detach() for key, p in net.named_parameters()}
    found = jacrev(lambda p: functional_call(net, p, (x,)))(params)
    assert found.keys() == params.keys()
    for key, p in params.items():
        expected = loop_jacobian(lambda leaf: functional_call(net, {**params, key: leaf}, (x,)), p)
        torch.testing.assert_close(found[key], expected)


@pytest.mark.parametrize(
    "name", ["MLP", "batch norm", "transformer encoder layer", "attention", "LSTM", "convolutions"]
)
def test_hessian(name):
    """Second derivatives of modules are finite differences of first ones."""
    net, x = _module(name)
    gradient = jacrev(lambda x: net(x).square().sum())
    torch.testing.assert_close(
        jacrev(gradient)(x).detach(), finite_differences(gradient, x), rtol=1e-5, atol=1e-5
    )


def test_second_derivative_of_fused_attention():
    """PyTorch has none on the CPU; here it is that of attention made of products."""
    q = torch.randn(1, 2, 3, 4)
    f = lambda q: F.scaled_dot_product_attention(q, q, q).sum()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        found = jacrev(jacrev(f))(q)
        with pytest.raises(RuntimeError, match="derivative for aten::_scaled_dot_product_flash_attention"):
            torch.func.jacrev(torch.func.jacrev(f))(q)
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(found, loop_jacobian(jacrev(f), q))


@pytest.mark.parametrize("name", ["MLP", "convolutions", "transformer encoder layer", "attention"])
def test_under_vmap(name):
    """Modules in evaluation mode under vmap: one Jacobian for each sample."""
    net, x = _module(name)
    net.eval()
    single = lambda sample: net(sample[None])[0]
    if name == "transformer encoder layer":
        net = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.0, batch_first=True)
    expected = torch.stack([loop_jacobian(single, sample) for sample in x])
    torch.testing.assert_close(vmap(jacrev(single))(x).detach(), expected)


def test_batch_norm_counts_once():
    """In training mode the running statistics move once for a Jacobian, as for one call."""
    net, again = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    x = torch.randn(5, 3)
    jacrev(net)(x)
    again(x)
    assert net.num_batches_tracked == 1
    torch.testing.assert_close(net.running_mean, again.running_mean)
    torch.testing.assert_close(net.running_var, again.running_var)
    assert not net.running_mean.requires_grad


DROPOUTS = {
    "Dropout": lambda: nn.Dropout(0.5),
    "several": lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Tanh(), nn.AlphaDropout(0.2)),
    "Dropout1d": lambda: nn.Dropout1d(0.5),
    "RReLU": lambda: nn.RReLU(),
    "FeatureAlphaDropout": lambda: nn.FeatureAlphaDropout(0.4),
    "transformer encoder layer": lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.3, batch_first=True),
    "attention": lambda: lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3),
    "gumbel_softmax": lambda: lambda x: F.gumbel_softmax(x, dim=-1),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout(name, agrees):
    """Random masks are drawn once for a Jacobian: all rows see the same one."""
    agrees(seeded(DROPOUTS[name]()), torch.randn(2, 3, 4), torch_works=False)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("argnum", [0, 1, 2])
def test_scaled_dot_product_attention(argnum, causal, agrees):
    """Attention with respect to queries, keys and values, with masks."""
    q, k, v = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4)
    agrees(lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=causal), q, k, v, argnums=argnum)
    mask = torch.randn(3, 3)
    agrees(lambda *qkv: F.scaled_dot_product_attention(*qkv, attn_mask=mask), q, k, v, argnums=argnum)
    agrees(lambda m: F.scaled_dot_product_attention(q, k, v, attn_mask=m), mask)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: F.cross_entropy(x, torch.tensor([1, 0])), lambda x: F.mse_loss(x, x.detach() + 1),
        lambda x: F.cross_entropy(x, torch.tensor([1, 0]), reduction="none"),
        lambda x: F.smooth_l1_loss(x, x.flip(0)),
        lambda x: F.kl_div(x.log_softmax(1), x.softmax(1), reduction="none"),
        lambda x: F.binary_cross_entropy_with_logits(x, x.detach().sigmoid(), reduction="none"),
        lambda x: F.huber_loss(x, torch.zeros(2, 3), reduction="none"),
        lambda x: F.nll_loss(x.log_softmax(1), torch.tensor([2, 1]), reduction="none"),
    ],
)  # fmt: skip
def test_losses(loss, agrees):
    """Losses, reduced and not."""
    agrees(loss, torch.randn(2, 3), differences=False)


def _block():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Sigmoid())


def test_checkpoint(agrees):
    """Non-reentrant checkpointing, nested and with dropout inside, recomputes what the walk needs."""
    net, drop = _block(), nn.Dropout(0.4)

    def f(x):
        y = checkpoint(net, x, use_reentrant=False)
        y = checkpoint(lambda y: checkpoint(net, y.sin(), use_reentrant=False) * y, y, use_reentrant=False)
        return checkpoint(lambda y: drop(y) + x, y, use_reentrant=False)

    agrees(seeded(f), torch.randn(5, 3), torch_works=False)


def test_checkpoint_under_itself():
    """A Hessian through a checkpointed block."""
    net = _block()
    f = lambda x: checkpoint(net, x, use_reentrant=False).square().sum()
    x = torch.randn(3)
    torch.testing.assert_close(
        jacrev(jacrev(f))(x).detach(), finite_differences(jacrev(f), x), rtol=1e-5, atol=1e-5
    )


def test_checkpoint_parameters():
    """The answer is differentiable with respect to parameters inside a checkpointed block."""
    net, x = _block(), torch.randn(2, 3)
    jacrev(lambda x: checkpoint(net, x, use_reentrant=False))(x).square().sum().backward()
    found = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    jacrev(net)(x).square().sum().backward()
    expected = [p.grad for p in net.parameters() if p.grad is not None]
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_reentrant_checkpoint_is_refused():
    """Reentrant checkpointing is an error as clear as autograd's, and nobody's .grad is touched."""
    net, x = _block(), torch.randn(2, 3)
    f = lambda x: checkpoint(net, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match="use_reentrant"):
        loop_jacobian(f, x)
    with pytest.raises(RuntimeError, match="use_reentrant"):
        jacrev(f)(x)
    with pytest.raises(RuntimeError, match="use_reentrant"):
        jacobian(f)(x)
    assert all(p.grad is None for p in net.parameters())
    assert x.grad is None


def test_reentrant_checkpoint_of_something_else():
    """Reentrant checkpointing on the way to no differentiated input does no harm."""
    net, x = _block(), torch.randn(3)
    f = lambda x: x * checkpoint(net, torch.ones(3), use_reentrant=True).detach()
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))


HOOKS = {
    "save_on_cpu": lambda: save_on_cpu(),
    "identity": lambda: saved_tensors_hooks(lambda t: t, lambda t: t),
    "numpy": lambda: saved_tensors_hooks(
        lambda t: t.detach().numpy().copy(), lambda a: torch.from_numpy(a.copy())
    ),
    "half": lambda: saved_tensors_hooks(lambda t: t.half(), lambda t: t.double()),
    "doubled": lambda: saved_tensors_hooks(lambda t: t, lambda t: t * 2),
}


@pytest.mark.parametrize("where", ["inside", "around"])
@pytest.mark.parametrize("hooks", HOOKS)
def test_saved_tensor_hooks(hooks, where):
    """What saved-tensor hooks give back is what the walk reads, also where it is not what was saved."""
    w = torch.randn(3, 4)

    def f(x):
        return ((x.sin() @ w).tanh() * x.sum()).softmax(-1).exp()

    def hooked(x):
        with HOOKS[hooks]():
            return f(x)

    x = torch.randn(2, 3)
    expected = loop_jacobian(hooked, x)
    if where == "inside":
        torch.testing.assert_close(jacrev(hooked)(x), expected)
    else:
        with HOOKS[hooks]():
            torch.testing.assert_close(jacrev(f)(x), expected)


def test_disk_hooks(tmp_path):
    """Saved tensors kept on disk are read from there, and their files can go when the answer is there."""

    class OnDisk:
        def __init__(self, tensor):
            self.path = tmp_path / f"{len(list(tmp_path.iterdir()))}.pt"
            torch.save(tensor, self.path)

    def f(x):
        with saved_tensors_hooks(OnDisk, lambda kept: torch.load(kept.path)):
            return (x.exp() * x).cumsum(0)

    x = torch.randn(4)
    found = jacrev(f)(x)
    assert list(tmp_path.iterdir())
    torch.testing.assert_close(found, loop_jacobian(f, x))


def test_tensor_hooks(agrees):
    """Hooks on tensors change gradients as they do in autograd."""

    def f(x):
        y = x.sin()
        y.register_hook(lambda g: g * 2)
        z = y * x
        z.register_hook(lambda g: g.clamp(max=0.5))
        return z.cumsum(0)

    agrees(f, torch.randn(4), differences=False, torch_works=False)


def test_hooks_on_the_input(agrees):
    """A hook that the function puts on its input."""

    def f(x):
        x.register_hook(lambda g: g + 1)
        return x * x

    agrees(f, torch.randn(4), differences=False, torch_works=False)


def test_node_hooks(agrees):
    """Hooks on nodes, before and after."""

    def f(x):
        y = x.exp()
        y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] * 3,))
        z = y * x
        z.grad_fn.register_prehook(lambda outputs: (outputs[0] + 1,))
        return z

    agrees(f, torch.randn(4), differences=False, torch_works=False)


def test_hooks_that_watch(agrees):
    """Hooks that only look, retain_grad and multi-grad hooks, change nothing."""
    seen = []

    def f(x):
        y, z = x.sin(), x.exp()
        y.retain_grad()
        y.register_hook(lambda g: seen.append(tuple(g.shape)))
        torch.autograd.graph.register_multi_grad_hook((y, z), lambda grads: seen.append("both"))
        return y * z

    agrees(f, torch.randn(3), differences=False, torch_works=False)
    assert (3,) in seen
    assert "both" in seen


def test_hooks_outside_do_not_count():
    """Hooks on the caller's tensors belong to the caller's graph."""
    x = torch.randn(3, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: g * 100)
    torch.testing.assert_close(jacrev(torch.sin)(y).detach(), torch.diag(y.cos()).detach())


def test_hooks_inside_an_inner_jacobian():
    """Hooks inside an inner Jacobian act on the outer one as in autograd."""

    def f(x):
        y = x.exp()
        y.register_hook(lambda g: g * 2)
        return (y * x).sum()

    def loop_gradient(x):
        with torch.enable_grad():
            return torch.autograd.grad(f(x), x, create_graph=True)[0]

    x = torch.randn(3)
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    torch.testing.assert_close(jacrev(jacrev(f))(x), loop_jacobian(loop_gradient, x))


@pytest.mark.parametrize("kind", ["forward", "forward pre", "full backward", "full backward pre"])
def test_module_hooks(kind, agrees):
    """Module hooks change values and gradients as they do in autograd."""
    net = _block()
    register = {
        "forward": lambda: net[1].register_forward_hook(lambda m, args, out: out * 2),
        "forward pre": lambda: net[1].register_forward_pre_hook(lambda m, args: (args[0] + 1,)),
        "full backward": lambda: net[1].register_full_backward_hook(lambda m, gi, go: (gi[0] * 3,)),
        "full backward pre": lambda: net[1].register_full_backward_pre_hook(lambda m, go: (go[0] * 3,)),
    }[kind]
    handle = register()
    x = torch.randn(4, 3)
    hooked = agrees(net, x, differences="backward" not in kind, torch_works=False)
    handle.remove()
    plain = agrees(net, x, torch_works=False)
    assert not torch.allclose(hooked, plain)


def test_jacobian_refuses_hooks():
    """The operator never forms whole cotangents, so it says that it cannot run hooks."""

    def f(x):
        y = x.sin()
        y.register_hook(lambda g: g * 2)
        return y * x

    with pytest.raises(RuntimeError, match="hooks"):
        jacobian(f)(torch.randn(3))


@pytest.mark.parametrize("where", ["inside", "around"])
def test_autocast(where):
    """Under bf16 autocast the Jacobian has float32 and the accuracy of bfloat16."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).float()
    x = torch.randn(5, 4, dtype=torch.float32)

    def f(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net(x).float()

    expected = loop_jacobian(f, x)
    if where == "inside":
        found = jacrev(f)(x)
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = jacrev(lambda x: net(x).float())(x)
    assert found.dtype == torch.float32
    # the factors are rounded to bfloat16 (2⁻⁸) in a few places
    torch.testing.assert_close(found.detach(), expected, rtol=1.6e-2, atol=1e-2)


def test_autocast_around_does_not_round():
    """Autocast around the call concerns the ops of the function, not the arithmetic of the Jacobian."""
    x = torch.randn(6, dtype=torch.float32)
    w = torch.randn(6, 6, dtype=torch.float32)

    def f(x):
        with torch.autocast("cpu", enabled=False):
            y = (w @ x).tanh()
            return w @ (y * y.softmax(0).cumsum(0))

    expected = loop_jacobian(f, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = jacrev(f)(x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """In half precision the Jacobian has the input's dtype and its accuracy."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), nn.LogSoftmax(-1))
    x = torch.randn(5, 4)
    exact = jacrev(net)(x).detach()
    found = jacrev(net.to(dtype))(x.to(dtype)).detach()
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_threads():
    """Several threads compute at the same time, each its own Jacobians, with and without hooks."""
    w = torch.randn(6, 6)

    def plain(x):
        return (w @ x).tanh().cumsum(0)

    def hooked(x):
        y = (w @ x).tanh()
        y.register_hook(lambda g: g * 2)
        return y.cumsum(0)

    inputs = [torch.randn(6) for _ in range(8)]
    functions = [plain, hooked] * 4
    expected = [loop_jacobian(f, x) for f, x in zip(functions, inputs, strict=True)]
    failures = []

    def work(f, x, answer):
        try:
            for _ in range(10):
                torch.testing.assert_close(jacrev(f)(x), answer)
                torch.testing.assert_close(jacrev(jacrev(lambda x: f(x).sum()))(x).shape, (6, 6))
        except BaseException as error:
            failures.append(error)

    register = torch.Tensor.register_hook
    threads = [
        threading.Thread(target=work, args=job) for job in zip(functions, inputs, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert torch.Tensor.register_hook is register


def test_inside_a_backward():
    """Jacrev inside a Function's backward, which autograd runs on a thread of its own choosing."""

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g @ jacrev(lambda x: x**3)(x)

    x = torch.randn(3, requires_grad=True)
    Solve.apply(x).sum().backward()
    torch.testing.assert_close(x.grad, 3 * x.detach() ** 2)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_anomaly_mode(agrees):
    """Anomaly mode changes no answer, and where a backward gives NaN it says in which op."""
    with torch.autograd.detect_anomaly():
        agrees(lambda x: (x.sin() * x.roll(1)).cumsum(0), torch.randn(4), torch_works=False)
        with pytest.raises(RuntimeError, match="returned nan values"):
            loop_jacobian(lambda x: (x * 0).sqrt() * 0, torch.ones(3))
        with pytest.raises(RuntimeError, match="returned nan values"):
            jacrev(lambda x: (x * 0).sqrt() * 0)(torch.ones(3))


def test_deterministic_mode(agrees):
    """Deterministic algorithms give the same answers."""
    at = torch.tensor([0, 2, 2, 1])
    torch.use_deterministic_algorithms(True)
    try:
        agrees(lambda x: torch.zeros(3).index_add(0, at, x.sin()) + x[at].cumsum(0)[:3], torch.randn(4))
    finally:
        torch.use_deterministic_algorithms(False)


def test_set_default_dtype(agrees):
    """The default dtype does not leak into the answer."""
    x = torch.randn(4)
    torch.set_default_dtype(torch.float32)
    found = agrees(lambda x: torch.cat([x.sin(), x.new_zeros(1)])[1:] * 2.5 / 3, x)
    assert found.dtype == torch.float64
