"""Writes a built-in model as plain torch code, so that its weights can be used without hpsearch."""

from __future__ import annotations

from torch import nn

from hpsearch.training.layers import Dropout

LAYERS_WITHOUT_OPTIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Flatten)
"""Layers that the models create without arguments."""


def torch_source(model: nn.Module) -> str | None:
    """Return a Python expression that makes the same layers with the same names from `torch.nn`.

    Args:
        model: the model.

    Returns:
        The expression; None if the model has other layers than the built-in models, as a user's model may have.
    """
    if not isinstance(model, nn.Sequential):
        return None
    sources = {name: _layer(layer) for name, layer in model.named_children()}
    if None in sources.values():
        return None
    lines = "".join(f"            {name}=nn.{source},\n" for name, source in sources.items())
    return f"nn.Sequential(\n        OrderedDict(\n{lines}        )\n    )"


def _layer(layer: nn.Module) -> str | None:
    match layer:
        case nn.Conv2d():
            padding = "" if layer.padding == (0, 0) else f", padding={layer.padding[0]}"
            bias = "" if layer.bias is not None else ", bias=False"
            return f"Conv2d({layer.in_channels}, {layer.out_channels}, {layer.kernel_size[0]}{padding}{bias})"
        case nn.Linear():
            return f"Linear({layer.in_features}, {layer.out_features})"
        case nn.BatchNorm2d():
            return f"BatchNorm2d({layer.num_features})"
        case nn.MaxPool2d():
            return f"MaxPool2d({layer.kernel_size})"
        case nn.AvgPool2d():
            return f"AvgPool2d({layer.kernel_size})"
        case Dropout():
            return f"Dropout({layer.p})"
    return next((f"{kind.__name__}()" for kind in LAYERS_WITHOUT_OPTIONS if isinstance(layer, kind)), None)
