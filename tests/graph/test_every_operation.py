"""Every operation of ATen that takes one tensor, in place or not, and two: pruned exactly or left with a reason."""

import math

import pytest
import torch
from small_nets import IMAGE, Net, conv, removed_at_half
from torch import nn

SKIPPED = ("_nested", "sparse", "_test", "quantize", "_make_", "_cudnn", "_mkldnn", "mkldnn", "mps", "_thnn",
           "_foreach", "set_", "resize", "pin_memory", "_assert", "record_stream", "refine_names", "rename",
           "_backward", "_masked", "_philox", "_wrapped", "_int_mm", "_cslt")  # fmt: skip


def operations(tensors):
    """Overloads that need nothing but so many tensors, and give one of floats with the same shape each time."""
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        if name.startswith("__") or any(word in name for word in SKIPPED) or not hasattr(packet, "overloads"):
            continue
        for overload in packet.overloads():
            function = getattr(packet, overload)
            if _takes(function, tensors) and _is_a_map(function, tensors):
                yield f"{name}.{overload}", function
                break


def _takes(function, tensors):
    arguments = function._schema.arguments
    needed = [a for a in arguments if not a.has_default_value()]
    return (
        len(needed) == tensors
        and all(str(a.type) == "Tensor" for a in needed)
        and not any(a.is_out for a in arguments)
        and len(function._schema.returns) == 1
        and str(function._schema.returns[0].type) == "Tensor"
    )


def _is_a_map(function, tensors):
    """Of positive numbers below 1, on which nearly everything is defined."""
    given = [torch.rand(2, 8, 6, 6, dtype=torch.float64) * 0.8 + 0.1 for _ in range(tensors)]
    try:
        one, other = (function(*(t.clone() for t in given)) for _ in range(2))
    except Exception:
        return False
    return (
        one.shape == given[0].shape
        and one.is_floating_point()
        and bool(one.isfinite().all())
        and torch.equal(one, other)
        and one.layout == torch.strided
        and one.device.type == "cpu"
    )


UNARY, BINARY = dict(operations(1)), dict(operations(2))


@pytest.fixture(scope="module", params=[1, 2])
def tried(request):
    """name → whether channels are lost; each is checked against the oracle on the way."""
    found = {}
    for name, function in (UNARY if request.param == 1 else BINARY).items():

        def forward(m, x, function=function):
            y = m.a(x).sigmoid() * 0.8 + 0.1
            return m.out(function(y) if request.param == 1 else function(y, m.b(x).sigmoid() * 0.8 + 0.1))

        model = Net(forward, a=conv(3, 8), b=conv(3, 8), out=conv(8, 2))
        graph, small = removed_at_half(model, IMAGE[..., :6, :6])
        reason = next((f.reason for f in graph.frozen if f.layer == "a"), None)
        assert small.a.out_channels == 4 or reason, name
        found[name.split(".")[0]] = small.a.out_channels == 4
    return request.param, found


# Not one coordinate after another: what they leave alone or mix is told by the reason.
POINTWISE = {
    1: """
    abs acos acosh alias asin asinh atan atanh ceil celu celu_ clone contiguous cos cosh deg2rad detach digamma
    elu elu_ erf erfc erfinv exp exp2 expm1 floor frac gelu hardshrink hardsigmoid hardsigmoid_ hardswish
    hardswish_ hardtanh hardtanh_ i0 leaky_relu leaky_relu_ lgamma log log10 log1p log2 log_sigmoid logit mish
    mish_ nan_to_num neg positive rad2deg reciprocal relu relu6 relu_ round rsqrt selu selu_ sgn sigmoid
    sigmoid_ sign silu silu_ sin sinc sinh softplus softshrink sqrt square tan tanh tanh_ trunc special_entr
    special_erfcx special_i0e special_i1 special_log_ndtr special_ndtr special_ndtri special_bessel_j0
    special_airy_ai
    """,
    2: """add sub mul div pow fmod remainder maximum minimum fmax fmin hypot atan2 copysign logaddexp logaddexp2 xlogy
    nextafter true_divide floor_divide mul_ add_ sub_ div_ heaviside special_xlog1py special_zeta rsub""",
}


def test_pointwise_ones_lose_channels_and_none_is_wrong(tried):
    tensors, found = tried
    missed = [name for name in POINTWISE[tensors].split() if not found.get(name, True)]
    assert missed == [] and len(found) > (100 if tensors == 1 else 40)


ACTIVATIONS = [getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__]
MIXING = ("Softmax", "Softmax2d", "LogSoftmax", "Softmin", "GLU", "MultiheadAttention")


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_of_torch(kind):
    name = kind.__name__
    if name in ("MultiheadAttention", "RReLU"):
        return
    given = {"Threshold": (0.1, 0.2), "GLU": (1,), "Softmax": (1,), "LogSoftmax": (1,), "Softmin": (1,)}.get(name, ())
    model = nn.Sequential(conv(3, 16), kind(*given), conv(8 if name == "GLU" else 16, 2))
    graph, _ = removed_at_half(model)
    assert math.isclose(sum(g.channels for g in graph.groups), 16 * (name not in MIXING) + 8 * (name == "GLU"))
