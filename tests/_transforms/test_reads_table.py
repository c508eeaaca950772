"""Each way in which a function can read something that then changes: seen, and captured anew, or refused by name."""

import argparse
import array
import builtins
import collections
import contextlib
import contextvars
import copy
import ctypes
import dataclasses
import datetime
import enum
import functools
import importlib
import io
import itertools
import math
import operator
import os
import pathlib
import random
import sys
import threading
import time
import types
import typing
import uuid
import weakref

import numpy
import pytest
import torch
from tests._transforms import elsewhere
from tests.versions import NEWEST
from torch import nn

from torchjac import compile, jacrev

SCALE = 2.0
COUNT = [2]
RESOURCE = contextvars.ContextVar("RESOURCE", default=2.0)
HERE = threading.local()


class Config:
    """An object with attributes of every kind."""

    shared = 2.0
    table = {"scale": 2.0}  # noqa: RUF012

    def __init__(self):
        self.scale = 2.0
        self.inner = types.SimpleNamespace(scales=[2.0, 3.0])

    @property
    def doubled(self):
        """Read through an attribute."""
        return self.scale * 2

    @staticmethod
    def static():
        """Read a global."""
        return SCALE

    @classmethod
    def klass(cls):
        """Read the class."""
        return cls.shared

    def method(self, x):
        """Read the object."""
        return x * self.scale


class Dynamic:
    """An object that makes its attributes up."""

    def __init__(self):
        self.held = {"scale": 2.0}

    def __getattr__(self, name):
        return self.__dict__["held"][name]


class Descriptor:
    """A descriptor with a value of its own."""

    def __init__(self):
        self.value = 2.0

    def __get__(self, instance, owner):
        return self.value


class Described:
    """A class with a descriptor."""

    scale = Descriptor()


@dataclasses.dataclass
class Data:
    """A dataclass with a default."""

    scale: float = 2.0
    parts: list = dataclasses.field(default_factory=lambda: [2.0])


class Colour(enum.Enum):
    """An enumeration."""

    RED = 2.0


class Net(nn.Module):
    """A module that reads what modules have."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("shift", torch.ones(3))
        self.scale = 2.0

    def forward(self, x):
        """Read a layer, a buffer, a number and the training flag."""
        return self.layer(x) * self.scale + self.shift * x.sum() * (2.0 if self.training else 1.0)


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        """Make a matrix symmetric."""
        return weight.triu() + weight.triu(1).mT


def sees(x, value):
    """A function of a number that was read."""
    return x * value


# Each case gives the function, and what changes what it reads.


def global_number():
    def change():
        global SCALE
        SCALE = 3.0

    return (lambda x: x * SCALE), change


def global_zero_of_another_sign():
    held = [0.0]
    return (lambda x: x * math.copysign(1.0, held[0])), lambda: held.__setitem__(0, -0.0)


def global_shadows_a_builtin():
    return (lambda x: x * len((1, 2))), lambda: globals().__setitem__("len", lambda _: 5.0)


def module_attribute():
    return (lambda x: elsewhere.SCALE * x), lambda: setattr(elsewhere, "SCALE", 3.0)


def module_attribute_that_is_computed():
    return (lambda x: elsewhere.COMPUTED * x), lambda: setattr(elsewhere, "SCALE", 3.0)


def module_attribute_that_was_missing():
    return (lambda x: getattr(elsewhere, "ABSENT", 2.0) * x), lambda: setattr(elsewhere, "ABSENT", 3.0)


def library_constant():
    return (lambda x: math.pi * x), lambda: setattr(math, "pi", 3.0)


def library_function():
    return (lambda x: torch.sinc(x)), lambda: setattr(torch, "sinc", torch.cos)


def tensor_method():
    return (lambda x: x.sinc()), lambda: setattr(torch.Tensor, "sinc", torch.Tensor.cos)


def helper_elsewhere():
    return (lambda x: elsewhere.helper(x)), lambda: setattr(elsewhere, "SCALE", 3.0)


def import_inside():
    def func(x):
        from tests._transforms.elsewhere import SCALE as scale

        return scale * x

    return func, lambda: setattr(elsewhere, "SCALE", 3.0)


def import_by_name():
    def func(x):
        return importlib.import_module("tests._transforms.elsewhere").SCALE * x

    return func, lambda: setattr(elsewhere, "SCALE", 3.0)


def modules_of_the_system():
    def func(x):
        return sys.modules["tests._transforms.elsewhere"].SCALE * x

    return func, lambda: setattr(elsewhere, "SCALE", 3.0)


def returned_container():
    return (lambda x: elsewhere.get_table()["scale"] * x), lambda: elsewhere.TABLE.update(scale=3.0)


class Table(dict):
    """A dict that does as dicts do."""

    def __getitem__(self, name):
        return super().__getitem__(name)


def method_of_c_beneath():
    held = Table(scale=2.0)
    return (lambda x: held["scale"] * x), lambda: held.update(scale=3.0)


def closure_number():
    scale = 2.0

    def change():
        nonlocal scale
        scale = 3.0

    return (lambda x: x * scale), change


def closure_function():
    inner = lambda x: 2 * x

    def change():
        nonlocal inner
        inner = lambda x: 3 * x

    return (lambda x: inner(x)), change


def closure_cell():
    def maker(scale):
        return lambda x: x * scale

    func = maker(2.0)
    return func, lambda: setattr(func.__closure__[0], "cell_contents", 3.0)


def nested_function():
    held = {"scale": 2.0}

    def func(x):
        def inner(y):
            return sum(held["scale"] * each for each in (y,))

        return inner(x)

    return func, lambda: held.update(scale=3.0)


def default_argument():
    def func(x, scale=2.0):
        return x * scale

    return func, lambda: setattr(func, "__defaults__", (3.0,))


def keyword_default():
    def func(x, *, scale=2.0):
        return x * scale

    return func, lambda: func.__kwdefaults__.update(scale=3.0)


def default_container():
    def func(x, scales=[2.0]):  # noqa: B006
        return x * scales[0]

    return func, lambda: func.__defaults__[0].append(1.0) or func.__defaults__[0].__setitem__(0, 3.0)


def code():
    def func(x):
        return x * 2

    return func, lambda: setattr(func, "__code__", (lambda x: x * 3).__code__)


def code_of_a_helper():
    def helper(x):
        return x * 2

    return (lambda x: helper(x)), lambda: setattr(helper, "__code__", (lambda x: x * 3).__code__)


def attribute_of_a_function():
    def func(x):
        return x * func.scale

    func.scale = 2.0
    return func, lambda: setattr(func, "scale", 3.0)


def namespace():
    space = types.SimpleNamespace(inner=types.SimpleNamespace(scale=2.0))
    return (lambda x: x * space.inner.scale), lambda: setattr(space.inner, "scale", 3.0)


def parsed_arguments():
    space = argparse.Namespace(scale=2.0)
    return (lambda x: x * space.scale), lambda: setattr(space, "scale", 3.0)


def parsed_arguments_as_a_dict():
    space = argparse.Namespace(scale=2.0)
    return (lambda x: x * sum(vars(space).values())), lambda: setattr(space, "scale", 3.0)


def data_class():
    data = Data()
    return (lambda x: x * data.scale), lambda: setattr(data, "scale", 3.0)


def data_class_field():
    data = Data()
    return (lambda x: x * data.parts[0]), lambda: data.parts.__setitem__(0, 3.0)


def data_class_whole():
    data = Data()
    return (lambda x: x * dataclasses.asdict(data)["scale"]), lambda: setattr(data, "scale", 3.0)


def attrs_class():
    attrs = pytest.importorskip("attrs")
    data = attrs.make_class("Data", {"scale": attrs.field(default=2.0)})()
    return (lambda x: x * data.scale), lambda: setattr(data, "scale", 3.0)


def slots():
    class Slots:
        __slots__ = ("scale",)

    slotted = Slots()
    slotted.scale = 2.0
    return (lambda x: x * slotted.scale), lambda: setattr(slotted, "scale", 3.0)


def named_tuple():
    pair = collections.namedtuple("Pair", "scale parts")(2.0, [2.0])
    return (lambda x: x * pair.parts[0]), lambda: pair.parts.__setitem__(0, 3.0)


def enumeration():
    return (lambda x: x * Colour.RED.value), lambda: setattr(Colour.RED, "_value_", 3.0)


def list_deep():
    held = [[{"a": ([2.0],)}]]
    return (lambda x: x * held[0][0]["a"][0][0]), lambda: held[0][0]["a"][0].__setitem__(0, 3.0)


def list_long():
    held = [0.0] * 5000
    return (lambda x: x * (sum(held) + 1)), lambda: held.__setitem__(4000, 3.0)


def dict_order():
    held = {"a": 2.0, "b": 3.0}
    return (lambda x: x * next(iter(held.values()))), lambda: held.update(a=held.pop("a"))


def dict_subclass():
    held = collections.Counter(a=2)
    return (lambda x: x * held["a"]), lambda: held.update(a=1)


def default_dict():
    held = collections.defaultdict(float, a=2.0)
    return (lambda x: x * held["a"]), lambda: held.update(a=3.0)


def chain_map():
    inner = {"scale": 2.0}
    held = collections.ChainMap({}, inner)
    return (lambda x: x * held["scale"]), lambda: inner.update(scale=3.0)


def mapping_proxy():
    inner = {"scale": 2.0}
    held = types.MappingProxyType(inner)
    return (lambda x: x * held["scale"]), lambda: inner.update(scale=3.0)


def double_ended():
    held = collections.deque([2.0])
    return (lambda x: x * held[0]), lambda: held.appendleft(3.0)


def set_of_numbers():
    held = {2.0}
    return (lambda x: x * sum(held)), lambda: held.add(3.0)


def bytes_that_change():
    held = bytearray([2])
    return (lambda x: x * held[0]), lambda: held.__setitem__(0, 3)


def array_of_numbers():
    held = array.array("d", [2.0])
    return (lambda x: x * held[0]), lambda: held.__setitem__(0, 3.0)


def numpy_array():
    held = numpy.full(3, 2.0)
    return (lambda x: x * torch.tensor(held)), lambda: held.fill(3.0)


def numpy_array_long():
    held = numpy.ones(5000)
    return (lambda x: x * float(held.sum())), lambda: held.__setitem__(4000, 3.0)


def numpy_shares_an_index():
    held = numpy.array([0, 1, 2])
    index = torch.from_numpy(held)
    return (lambda x: x[index]), lambda: held.__setitem__(0, 2)


def tensor_data_of_an_index():
    index = torch.tensor([0, 1, 2])
    return (lambda x: x[index]), lambda: index.data.fill_(1)


def tensor_list():
    held = torch.tensor([2.0, 1.0])
    return (lambda x: x * held.tolist()[0]), lambda: held.fill_(3.0)


def tensor_item():
    held = torch.tensor(2.0)
    return (lambda x: x * held.item()), lambda: held.fill_(3.0)


def tensor_as_an_array():
    held = torch.tensor([2.0, 1.0])
    return (lambda x: x * float(numpy.asarray(held)[0])), lambda: held.fill_(3.0)


def tensor_shape():
    held = [torch.ones(2)]
    return (lambda x: x * held[0].shape[0]), lambda: held[0].resize_(3)


def tensor_data_replaced():
    held = torch.full((3,), 2.0)
    return (lambda x: x * held.data), lambda: setattr(held, "data", torch.full((3,), 3.0))


def tensor_gradient():
    held = torch.ones(3, requires_grad=True)
    held.grad = torch.full((3,), 2.0)
    return (lambda x: x * held.grad), lambda: setattr(held, "grad", torch.full((3,), 3.0))


def class_attribute():
    return (lambda x: x * Config.shared), lambda: setattr(Config, "shared", 3.0)


def class_attribute_shadowed():
    config = Config()
    return (lambda x: x * config.shared), lambda: setattr(config, "shared", 3.0)


def class_default_shadowed_elsewhere():
    held = elsewhere.Defaults()
    return (lambda x: x * held.scale), lambda: setattr(held, "scale", 3.0)


def class_container():
    return (lambda x: x * Config().table["scale"]), lambda: Config.table.update(scale=3.0)


def property_read():
    config = Config()
    return (lambda x: x * config.doubled), lambda: setattr(config, "scale", 3.0)


def property_replaced():
    config = Config()
    return (lambda x: x * config.doubled), lambda: setattr(Config, "doubled", property(lambda self: 7.0))


def static_method():
    config = Config()
    return (lambda x: x * config.static()), global_number()[1]


def class_method():
    return (lambda x: x * Config.klass()), lambda: setattr(Config, "shared", 3.0)


def descriptor():
    held = Described()
    return (lambda x: x * held.scale), lambda: setattr(vars(Described)["scale"], "value", 3.0)


def dynamic_attribute():
    held = Dynamic()
    return (lambda x: x * held.scale), lambda: held.held.update(scale=3.0)


def dynamic_attribute_shadowed():
    held = Dynamic()
    return (lambda x: x * held.scale), lambda: setattr(held, "scale", 3.0)


def computed_name():
    config, name = Config(), ["sca", "le"]
    return (lambda x: x * getattr(config, "".join(name))), lambda: setattr(config, "scale", 3.0)


def attribute_that_was_missing():
    config = Config()
    return (lambda x: x * (3.0 if hasattr(config, "more") else 2.0)), lambda: setattr(config, "more", 1)


def attribute_getter():
    config, getter = Config(), operator.attrgetter("scale")
    return (lambda x: x * getter(config)), lambda: setattr(config, "scale", 3.0)


def method_of_an_object():
    config = Config()
    return (lambda x: config.method(x)), lambda: setattr(config, "method", lambda x: 3 * x)


def method_of_a_class():
    config = Config()
    return (lambda x: config.method(x)), lambda: setattr(Config, "method", lambda self, x: 3 * x)


def operator_of_a_class():
    class Two:
        def __mul__(self, x):
            return 2 * x

    two = Two()
    return (lambda x: two * x), lambda: setattr(Two, "__mul__", lambda self, x: 3 * x)


def class_of_an_object():
    class Other(Config):
        def method(self, x):
            return 3 * x

    config = Config()
    return (lambda x: config.method(x)), lambda: setattr(config, "__class__", Other)


def bases_of_a_class():
    class First:
        scale = 2.0

    class Second:
        scale = 3.0

    class Derived(First):
        pass

    return (lambda x: x * Derived().scale), lambda: setattr(Derived, "__bases__", (Second,))


def callable_object():
    class Model:
        def __init__(self):
            self.scale = 2.0

        def __call__(self, x):
            return x * self.scale

    model = Model()
    return model, lambda: setattr(model, "scale", 3.0)


def bound_method():
    config = Config()
    return config.method, lambda: setattr(config, "scale", 3.0)


def partial_keyword():
    func = functools.partial(sees, value=2.0)
    return func, lambda: func.keywords.update(value=3.0)


def copied():
    config = Config()
    return (lambda x: x * copy.deepcopy(config).scale), lambda: setattr(config, "scale", 3.0)


def forward_replaced():
    net = Net()
    return net, lambda: setattr(net, "forward", lambda x: 3 * x)


def forward_of_a_class():
    class Own(Net):
        pass

    return Own(), lambda: setattr(Own, "forward", lambda self, x: 3 * x)


def forward_of_a_library():
    return nn.Sequential(nn.Identity()), lambda: setattr(nn.Identity, "forward", lambda self, x: 3 * x)


def forward_hook():
    net = Net()
    return net, lambda: net.layer.register_forward_hook(lambda module, given, out: 3 * out)


def forward_pre_hook():
    net = Net()
    return net, lambda: net.layer.register_forward_pre_hook(lambda module, given: (3 * given[0],))


def hook_reads():
    net, held = Net(), [2.0]
    net.layer.register_forward_hook(lambda module, given, out: held[0] * out)
    return net, lambda: held.__setitem__(0, 3.0)


def backward_hook():
    net = Net()
    hook = lambda module, inward, outward: tuple(3 * each for each in inward)
    return net, lambda: net.layer.register_full_backward_hook(hook)


def global_hook():
    register = torch.nn.modules.module.register_module_forward_hook
    return Net(), lambda: HERE.__dict__.update(handle=register(lambda module, given, out: 3 * out))


def training_flag():
    net = Net()
    return net, net.eval


def buffer_replaced():
    net = Net()
    return net, lambda: setattr(net, "shift", torch.full((3,), 3.0))


def parameter_replaced():
    net = Net()
    return net, lambda: setattr(net.layer, "weight", nn.Parameter(torch.ones(3, 3)))


def module_replaced():
    net = Net()
    return net, lambda: setattr(net, "layer", nn.Linear(3, 3))


def module_number():
    net = Net()
    return net, lambda: setattr(net, "scale", 3.0)


def parametrization():
    net = Net()
    return net, lambda: nn.utils.parametrize.register_parametrization(net.layer, "weight", Symmetric())


def probability_of_a_dropout():
    net = nn.Dropout(0.0)
    return net, lambda: setattr(net, "p", 1.0)


def distribution():
    law = torch.distributions.Normal(torch.zeros(3), torch.ones(3), validate_args=False)
    return (lambda x: law.log_prob(x)), lambda: setattr(law, "scale", torch.full((3,), 2.0))


def cached_before():
    held = [2.0]

    @functools.lru_cache
    def helper():
        return held[0]

    def change():
        held[0] = 3.0
        helper.cache_clear()
        helper()

    helper()
    return (lambda x: x * helper()), change


def context_variable():
    return (lambda x: x * RESOURCE.get()), lambda: RESOURCE.set(3.0)


def thread_local():
    HERE.scale = 2.0
    return (lambda x: x * HERE.scale), lambda: setattr(HERE, "scale", 3.0)


def environment():
    return (lambda x: x * float(os.environ.get("TORCHJAC_SCALE", "2"))), lambda: os.environ.update(
        TORCHJAC_SCALE="3"
    )


def environment_by_getenv():
    return (lambda x: x * float(os.getenv("TORCHJAC_SCALE", "2"))), lambda: os.environ.update(
        TORCHJAC_SCALE="3"
    )


def default_dtype():
    return (lambda x: x * torch.tensor(0.1)), lambda: torch.set_default_dtype(torch.float32)


def default_device():
    if not NEWEST:
        pytest.skip("get_default_device raises once set_default_device(None) was called (torch 2.9)")
    return (lambda x: x * len(str(torch.get_default_device()))), lambda: torch.set_default_device("cpu:0")


def tensor_subclass():
    class Scaled(torch.Tensor):
        factor = 2.0

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            plain = [each.as_subclass(torch.Tensor) if isinstance(each, cls) else each for each in args]
            found = func(*plain, **(kwargs or {}))
            return found * cls.factor if isinstance(found, torch.Tensor) else found

    held = torch.ones(3).as_subclass(Scaled)
    return (lambda x: x * held), lambda: setattr(Scaled, "factor", 3.0)


def deterministic_mode():
    func = lambda x: x * (3.0 if torch.are_deterministic_algorithms_enabled() else 2.0)
    return func, lambda: torch.use_deterministic_algorithms(True)


def number_of_threads():
    return (lambda x: x * torch.get_num_threads()), lambda: torch.set_num_threads(torch.get_num_threads() + 1)


def builtin_replaced():
    return (lambda x: x * round(2.0)), lambda: setattr(builtins, "round", lambda _: 3.0)


def function_with_a_backward():
    held = [2.0]

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * held[0]

    return Scaled.apply, lambda: held.__setitem__(0, 3.0)


def tensor_hook():
    held = [2.0]

    def func(x):
        y = x.sin()
        y.register_hook(lambda grad: grad * held[0])
        return y

    return func, lambda: held.__setitem__(0, 3.0)


def enumeration_by_name():
    class Level(enum.IntEnum):
        LOW = 2

    return (lambda x: x * Level["LOW"].value), lambda: setattr(Level.LOW, "_value_", 3)


def metaclass_attribute():
    class Meta(type):
        scale = 2.0

    class Made(metaclass=Meta):
        pass

    return (lambda x: x * Made.scale), lambda: setattr(Meta, "scale", 3.0)


def name_of_a_class():
    class Two:
        pass

    return (lambda x: x * len(Two.__name__)), lambda: setattr(Two, "__name__", "Threes")


def name_of_a_function():
    def two():
        pass

    return (lambda x: x * len(two.__name__)), lambda: setattr(two, "__name__", "threes")


def annotation():
    def helper(a: 2.0):
        pass

    return (lambda x: x * helper.__annotations__["a"]), lambda: helper.__annotations__.update(a=3.0)


def type_hints():
    def helper(a: int):
        pass

    func = lambda x: x * len(typing.get_type_hints(helper))
    return func, lambda: helper.__annotations__.update(b=int)


def generic_alias():
    class Box(typing.Generic[typing.TypeVar("T")]):
        scale = 2.0

    alias = Box[int]
    return (lambda x: x * alias.scale), lambda: setattr(Box, "scale", 3.0)


def pattern_by_class():
    class Point:
        __match_args__ = ("scale",)

        def __init__(self):
            self.scale = 2.0

    point = Point()

    def func(x):
        match point:
            case Point(value):
                return x * value

    return func, lambda: setattr(point, "scale", 3.0)


def cell_that_was_empty():
    def func(x):
        try:
            return x * scale
        except NameError:
            return x * 2

    def change():
        nonlocal scale
        scale = 3.0

    if not callable(func):
        scale = 1.0
    return func, change


def function_of_a_text():
    scope = {"scale": 2.0}
    exec("def helper(x): return x * scale", scope)
    helper = scope["helper"]
    return (lambda x: helper(x)), lambda: scope.update(scale=3.0)


def error_as_a_text():
    error = ValueError("ab")
    return (lambda x: x * len(str(error))), lambda: setattr(error, "args", ("abc",))


def partial_replaced():
    func = functools.partial(sees, value=2.0)
    return (lambda x: func(x)), lambda: func.__setstate__((sees, (), {"value": 3.0}, {}))


def end_of_a_slice():
    class End:
        at = 2

        def __index__(self):
            return self.at

    end, held = End(), [1.0, 1.0, 1.0]
    part = slice(0, end)
    return (lambda x: x * sum(held[part])), lambda: setattr(end, "at", 3)


def view_of_a_dict():
    held = {"a": 2.0}
    values = held.values()
    return (lambda x: x * sum(values)), lambda: held.update(a=3.0)


def weak_method():
    config = Config()
    method = weakref.WeakMethod(config.method)
    return (lambda x: method()(x)), lambda: setattr(config, "scale", 3.0)


def method_of_c():
    config = Config()
    get = config.__getattribute__
    return (lambda x: x * get("scale")), lambda: setattr(config, "scale", 3.0)


def number_of_c():
    held = ctypes.c_double(2.0)
    return (lambda x: x * held.value), lambda: setattr(held, "value", 3.0)


def memory_of_c():
    held = (ctypes.c_double * 2)(2.0, 1.0)
    return (lambda x: x * held[0]), lambda: held.__setitem__(0, 3.0)


def memory_view():
    held = bytearray([2])
    view = memoryview(held)
    return (lambda x: x * view[0]), lambda: held.__setitem__(0, 3)


def context_manager():
    held = contextlib.nullcontext(2.0)

    def func(x):
        with held as scale:
            return x * scale

    return func, lambda: setattr(held, "enter_result", 3.0)


def module_of_the_system_replaced():
    def func(x):
        from tests._transforms import elsewhere

        return x * elsewhere.SCALE

    other = types.ModuleType("tests._transforms.elsewhere")
    other.SCALE = 3.0
    package = sys.modules["tests._transforms"]
    return func, lambda: setattr(package, "elsewhere", other)


def import_replaced():
    def func(x):
        import math as found

        return x * found.sqrt(4.0)

    usual, other = builtins.__import__, types.SimpleNamespace(sqrt=lambda _: 3.0)
    swapped = lambda name, *rest: other if name == "math" else usual(name, *rest)
    return func, lambda: setattr(builtins, "__import__", swapped)


def library_attribute_that_was_missing():
    return (lambda x: x * getattr(math, "absent", 2.0)), lambda: setattr(math, "absent", 3.0)


def library_class_attribute():
    law = torch.distributions.Distribution
    func = lambda x: x * (2.0 if law._validate_args else 3.0)
    return func, lambda: law.set_default_validate_args(not law._validate_args)


def numpy_flags():
    held = numpy.ones(3)
    return (lambda x: x * (2.0 if held.flags.writeable else 3.0)), lambda: held.setflags(write=False)


def numpy_names():
    held = numpy.zeros(2, dtype=[("ab", "f8")])
    return (lambda x: x * len(held.dtype.names[0])), lambda: setattr(held.dtype, "names", ("abc",))


def tensor_attribute():
    held = torch.ones(3)
    held.scale = 2.0
    return (lambda x: x * held.scale), lambda: setattr(held, "scale", 3.0)


def tensor_attribute_that_was_missing():
    held = torch.ones(3)
    return (lambda x: x * (3.0 if hasattr(held, "scale") else 2.0)), lambda: setattr(held, "scale", 1)


def tensor_version():
    held = torch.ones(3)
    return (lambda x: x * (1 + held._version)), lambda: held.add_(0)


def tensor_as_a_text():
    held = torch.ones(1)
    return (lambda x: x * len(repr(held))), lambda: held.fill_(12345.0)


SEEN = [
    global_number, global_zero_of_another_sign, global_shadows_a_builtin, module_attribute,
    module_attribute_that_is_computed, module_attribute_that_was_missing, library_constant, library_function,
    tensor_method, helper_elsewhere, import_inside, import_by_name, modules_of_the_system, returned_container,
    closure_number, closure_function, closure_cell, nested_function, default_argument, keyword_default,
    default_container, code, code_of_a_helper, attribute_of_a_function, namespace, parsed_arguments,
    parsed_arguments_as_a_dict, data_class, data_class_field, data_class_whole, attrs_class, slots, named_tuple,
    enumeration, list_deep, list_long, dict_order, dict_subclass, default_dict, chain_map, mapping_proxy, double_ended,
    set_of_numbers, bytes_that_change, array_of_numbers, numpy_array, numpy_array_long, numpy_shares_an_index,
    tensor_data_of_an_index, tensor_list, tensor_item, tensor_as_an_array, tensor_shape, tensor_data_replaced,
    tensor_gradient, tensor_subclass,
    class_attribute, class_attribute_shadowed, class_default_shadowed_elsewhere, class_container,
    property_read, property_replaced, static_method, class_method, descriptor, dynamic_attribute,
    dynamic_attribute_shadowed, computed_name, attribute_that_was_missing, attribute_getter, method_of_an_object,
    method_of_a_class, operator_of_a_class, class_of_an_object, bases_of_a_class, callable_object, bound_method,
    partial_keyword, copied, forward_replaced, forward_of_a_class, forward_of_a_library, forward_hook,
    forward_pre_hook, hook_reads, backward_hook, global_hook, training_flag, buffer_replaced, parameter_replaced,
    module_replaced, module_number, parametrization, probability_of_a_dropout, distribution, cached_before,
    context_variable, thread_local, environment, environment_by_getenv, default_dtype, default_device,
    deterministic_mode, number_of_threads, builtin_replaced, function_with_a_backward, tensor_hook,
    enumeration_by_name, metaclass_attribute, name_of_a_class, name_of_a_function, annotation, type_hints,
    generic_alias, pattern_by_class, cell_that_was_empty, function_of_a_text, error_as_a_text, partial_replaced,
    end_of_a_slice, view_of_a_dict, weak_method, method_of_c, number_of_c, memory_of_c,
      method_of_c_beneath, memory_view, context_manager,
    module_of_the_system_replaced, import_replaced, library_attribute_that_was_missing, library_class_attribute,
    numpy_flags, numpy_names, tensor_attribute, tensor_attribute_that_was_missing, tensor_version, tensor_as_a_text,
]  # fmt: skip


@pytest.fixture
def put_back(monkeypatch):
    """Everything that a case changes beyond itself is as it was."""
    saved = [
        (owner, name, getattr(owner, name))
        for owner, name in [
            (elsewhere, "SCALE"), (math, "pi"), (torch, "sinc"), (torch.Tensor, "sinc"), (Config, "shared"),
            (Config, "doubled"), (Config, "method"), (nn.Identity, "forward"), (builtins, "round"),
            (builtins, "__import__"), (sys.modules["tests._transforms"], "elsewhere"),
            (torch.distributions.Distribution, "_validate_args"),
        ]
    ]  # fmt: skip
    threads, environ = torch.get_num_threads(), dict(os.environ)
    token = RESOURCE.set(2.0)
    Config.doubled, doubled = vars(Config)["doubled"], vars(Config)["doubled"]
    yield
    global SCALE
    SCALE = 2.0
    globals().pop("len", None)
    vars(elsewhere).pop("ABSENT", None)
    vars(math).pop("absent", None)
    for owner, name, value in saved:
        if name != "doubled":
            setattr(owner, name, value)
    Config.doubled = doubled
    Config.table["scale"] = elsewhere.TABLE["scale"] = Colour.RED._value_ = vars(Described)["scale"].value = (
        2.0
    )
    if "handle" in HERE.__dict__:
        HERE.__dict__.pop("handle").remove()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    torch.set_default_device(None)
    os.environ.clear()
    os.environ.update(environ)
    RESOURCE.reset(token)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("case", SEEN, ids=lambda case: case.__name__)
def test_seen(case, put_back):
    """What a function reads is looked at before each run: changed, the answer is the new one."""
    torch.manual_seed(0)
    func, change = case()
    plain, jac = jacrev(func), compile(jacrev(func), backend="eager")
    x = torch.rand(3)
    before = plain(x)
    assert torch.equal(jac(x), before)
    assert torch.equal(jac(x), before)
    assert jac.captures == 1
    change()
    after = plain(x)
    assert after.shape != before.shape or after.dtype != before.dtype or not torch.equal(after, before)
    assert torch.equal(jac(x), after)
    assert torch.equal(jac(x), after)
    assert jac.captures == 2


MODES = {
    "grad mode": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("name", MODES)
def test_modes(name):
    """Each mode around a call has a program of its own, as right as the function under it."""
    weight, x = torch.rand(3, 3, dtype=torch.float32), torch.rand(3, dtype=torch.float32)
    func = lambda x: (weight @ x).sin() * (2.0 if torch.is_grad_enabled() else 3.0)
    jac = compile(jacrev(func), backend="eager")
    for _ in range(2):
        assert torch.equal(jac(x), jacrev(func)(x))
        with MODES[name]():
            assert torch.equal(jac(x), jacrev(func)(x))
    assert jac.captures == 2


def test_anomaly_mode():
    """In anomaly mode the function itself is called."""
    jac = compile(jacrev(torch.sin), backend="eager")
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        jac(torch.rand(3))
    assert jac.captures == 0


# Each case gives a function that is refused, and the name by which it is.


def clock():
    return (lambda x: x * time.perf_counter()), "calls time.perf_counter"


def date():
    return (lambda x: x * datetime.datetime.now().year), "calls datetime.now"


def python_random():
    return (lambda x: x * random.random()), "an object of type random.Random"


def python_random_by_python():
    def func(x):
        draw = getattr(importlib.import_module("random"), "gauss")  # noqa: B009
        return x * draw(0, 1)

    return func, "an object of type random.Random"


def numpy_random():
    return (lambda x: x * numpy.random.rand()), "an object of type numpy.random.*RandomState"


def numpy_generator():
    held = numpy.random.default_rng(0)
    return (lambda x: x * held.random()), "an object of type numpy.random.*Generator"


def seed():
    def func(x):
        torch.manual_seed(0)
        return x * torch.rand(3)

    return func, r"calls torch\.random\.manual_seed"


def forked_state():
    def func(x):
        with torch.random.fork_rng():
            return x * torch.rand(3)

    return func, r"calls torch\.random\.fork_rng"


def state_read():
    def func(x):
        state = torch.get_rng_state()
        y = x * torch.rand(3)
        torch.set_rng_state(state)
        return y

    return func, r"calls torch\.random\.get_rng_state"


def seeded_generator():
    return (lambda x: torch.default_generator.manual_seed(0) and x), r"calls torch\.Generator\.manual_seed"


def file_opened():
    def func(x):
        with open(__file__) as file:
            return x * len(file.readline())

    return func, "calls .*open"


def file_read():
    return (lambda x: x * len(pathlib.Path(__file__).read_text())), r"calls pathlib.*read_text"


def file_asked_for():
    return (lambda x: x * os.path.exists("/")), "calls genericpath.exists"


def folder():
    return (lambda x: x * len(os.listdir("/"))), "calls posix.listdir"


def counter():
    held = itertools.count()
    return (lambda x: x * next(held)), "an object of type itertools.count"


def generator():
    held = (number for number in range(9))
    return (lambda x: x * next(held)), "an object of type builtins.generator"


def iterator():
    held = iter([2.0, 3.0])
    return (lambda x: x * next(held)), "an object of type builtins.list_iterator"


def stream():
    held = io.StringIO("2\n3")
    return (lambda x: x * float(held.readline())), "calls _io.readline"


def identifier():
    return (lambda x: x * uuid.uuid4().int), r"calls uuid\.uuid4"


def process():
    return (lambda x: x * os.getpid()), "calls posix.getpid"


def frame():
    return (lambda x: x * sys._getframe().f_lineno), "calls sys._getframe"


def all_globals():
    names = {"held": "SCALE"}
    return (lambda x: x * globals()[names["held"]]), "calls builtins.globals"


def subclasses():
    return (lambda x: x * len(Config.__subclasses__())), "calls Config.__subclasses__"


def address():
    held = torch.ones(3)
    return (lambda x: x * held.data_ptr()), r"calls torch\.Tensor\.data_ptr"


def thread():
    def func(x):
        worker = threading.Thread(target=len, args=((),))
        worker.start()
        return x

    return func, r"calls threading\.start"


def cache_filled():
    held = [2.0]
    helper = functools.lru_cache(lambda: held[0])
    return (lambda x: x * helper()), "rebinds what it reads .*a cache"


def first_import():
    def func(x):
        from tests._transforms import imported_late

        return x * imported_late.SCALE

    return func, r"imports tests\._transforms\.imported_late for the first time"


def caught():
    def func(x):
        try:
            return x * time.time()
        except RuntimeError:
            return x

    return func, "calls time.time"


def written_global():
    def func(x):
        global SCALE
        SCALE = 5.0
        return x * 2

    return func, "rebinds what it reads"


def written_class():
    def func(x):
        Config.shared = 5.0
        return x * 2

    return func, "rebinds what it reads"


def written_array():
    held = numpy.ones(3)

    def func(x):
        held[0] += 1
        return x * held[0]

    return func, "rebinds what it reads"


def default_filled():
    held = collections.defaultdict(lambda: 2.0)
    return (lambda x: x * held["a"]), "rebinds what it reads"


REFUSED = [
    clock, date, python_random, python_random_by_python, numpy_random, numpy_generator, seed, forked_state, state_read,
    seeded_generator, file_opened, file_read, file_asked_for, folder, counter, generator, iterator, stream, identifier,
    process, frame, all_globals, subclasses, address, thread, cache_filled, first_import, caught, written_global,
    written_class, written_array, default_filled,
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
def test_refused(case, put_back):
    """What cannot be looked at again, or would be done once only, is refused by name; nothing is captured."""
    func, match = case()
    jac = compile(jacrev(func), backend="eager")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"compile: the function .*{match}"):
            jac(torch.rand(3))
    assert jac.captures == 0
    assert sys.getprofile() is None
