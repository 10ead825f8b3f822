"""Small detectors, images and targets for tests."""

import torch

SMALL = {
    "backbone": "resnet18",
    "num_classes": 5,
    "min_size": 96,
    "max_size": 160,
    "channels": 16,
    "box_channels": 32,
    "mask_channels": (16,),
    "proposals_train": 50,
    "proposals_test": 30,
    "roi_samples": 16,
}
SIZES = ((90, 100), (70, 120))


def make_images(sizes=SIZES, seed=0):
    """One image of random numbers for each size."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def make_target(count, size, seed=0, classes=5):
    """``count`` boxes with their masks in an image of ``size``."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    limits = torch.tensor([width, height], dtype=torch.float32)
    corner = torch.rand(count, 2, generator=generator) * limits / 2
    boxes = torch.cat([corner, corner + limits / 4 + corner / 4], 1)
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    labels = torch.randint(1, classes, (count,), generator=generator)
    return {"boxes": boxes, "labels": labels, "masks": masks}


def make_targets(counts=(2, 1), sizes=SIZES):
    """A target for each image."""
    both = enumerate(zip(counts, sizes, strict=True))
    return [make_target(count, size, seed) for seed, (count, size) in both]


def wake_heads(model, seed=1):
    """Larger random weights behind the pyramid, so that boxes move and classes differ."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.startswith(("rpn.", "roi_heads.")) and parameter.dim() > 1:
            scale = parameter[0].numel() ** -0.5
            random = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(scale * random)
    return model
