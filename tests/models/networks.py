"""Networks for tests: with statistics that differ, so that no layer is close to the identity."""

import torch
from torch import nn


def randomise(model, seed=0):
    """Random statistics and weights of every norm; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def random(like, low, high):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            with torch.no_grad():
                module.weight.copy_(random(module.weight, 0.5, 1.5))
                module.bias.copy_(random(module.bias, -0.5, 0.5))
                module.running_mean.copy_(random(module.running_mean, -0.5, 0.5))
                module.running_var.copy_(random(module.running_var, 0.5, 1.5))
    return model.eval()


def wake(model, seed=1):
    """Random weights in every parameter, so that no block is the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model
