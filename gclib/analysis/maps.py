"""Draw attention maps over images and clips, as in figures 1 and 2 of the paper.

>>> with capture(model) as captured:
...     model(image[None])
>>> query_maps(image, captured["block"].attention[0], (8, 8), [(2, 3), (6, 6)])

Every figure has one colour scale, the query marked, an alt text, and a line of numbers per map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from gclib.analysis.distances import average_cosine_distance
from gclib.analysis.figures import COLOURS, HEAT, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Position = tuple[int, ...]


def map_of(attention: Tensor, positions: Sequence[int], query: Position) -> Tensor:
    """One row of an attention map, folded over the keys' positions.

    Args:
        attention: ``(queries, keys)``, or ``(1, keys)`` where all queries share one map.
        positions: sizes of the position axes, ``(H, W)`` or ``(T, H, W)``.
        query: index on each of these axes.

    Returns:
        Map of the sizes ``positions``. With sub-sampled keys its last two axes are halved.

    Raises:
        ValueError: the query lies outside, or the sizes do not fit the map.
    """
    positions, query = tuple(positions), tuple(query)
    fits = len(query) == len(positions)
    if not fits or not all(0 <= i < size for i, size in zip(query, positions, strict=True)):
        raise ValueError(f"query={query}: expected a position inside of {positions}")
    index = 0
    for i, size in zip(query, positions, strict=True):
        index = index * size + i
    row = attention[index if len(attention) > 1 else 0]
    halved = (*positions[:-2], *(size // 2 for size in positions[-2:]))
    for sizes in (positions, halved):
        if row.numel() == torch.Size(sizes).numel():
            return row.detach().reshape(sizes)
    raise ValueError(f"{row.numel()} keys do not fit positions {positions}")


def query_maps(
    image: Tensor,
    attention: Tensor,
    positions: Sequence[int],
    queries: Sequence[Position],
    *,
    title: str = "",
) -> None:
    """Show the maps of several queries over one image (figure 1).

    Args:
        image: ``(3, H, W)``, uint8 or 0 to 1.
        attention: ``(queries, keys)`` of this image.
        positions: ``(h, w)`` of the feature map.
        queries: ``(row, column)`` on the feature map, one panel each.
        title: name of the figure.
    """
    grid({title: (image, attention)}, positions, queries)


def grid(
    rows: Mapping[str, tuple[Tensor, Tensor]],
    positions: Sequence[int],
    queries: Sequence[Position] | Mapping[str, Sequence[Position]],
) -> None:
    """Show several images, or several blocks on one image, with the maps of several queries.

    Args:
        rows: label → image ``(3, H, W)`` and its attention ``(queries, keys)``.
        positions: ``(h, w)`` of the feature map.
        queries: queries of every row, or label → queries.
    """
    figure, alt, lines = draw_grid(rows, positions, queries)
    print("\n".join(lines))
    show(figure, alt)


def draw_grid(
    rows: Mapping[str, tuple[Tensor, Tensor]],
    positions: Sequence[int],
    queries: Sequence[Position] | Mapping[str, Sequence[Position]],
) -> tuple[Figure, str, list[str]]:
    """Draw what :func:`grid` shows.

    Returns:
        The figure, its alt text, and a :func:`summary` of each row.
    """
    by_row = {name: queries[name] if isinstance(queries, Mapping) else queries for name in rows}
    maps = {
        name: [map_of(attention, positions, query).double() for query in by_row[name]]
        for name, (_, attention) in rows.items()
    }
    columns = 1 + max(map(len, maps.values()))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.9 * columns + 0.6, 2.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    low = min(m.min().item() for found in maps.values() for m in found)
    high = max(m.max().item() for found in maps.values() for m in found)
    for line, (name, (image, _)) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.axis("off")
        _draw_image(line[0], image)
        line[0].set_title(name or "image", fontsize=9)
        for number, (axis, map_, query) in enumerate(
            zip(line[1:], maps[name], by_row[name], strict=False), start=1
        ):
            _draw_map(axis, image, map_, (low, high))
            _mark(axis, image, positions, query)
            _mark(line[0], image, positions, query, str(number))
            axis.set_title(f"query {number}: {query}", fontsize=9)
    figure.colorbar(axes[0][1].images[-1], ax=list(axes.flat), shrink=0.7, label="attention")
    return figure, _alt(maps), [summary(name, maps[name], by_row[name]) for name in rows]


def summary(name: str, maps: Sequence[Tensor], queries: Sequence[Position]) -> str:
    """A line on where each query looks most, and one on how far the maps are apart."""
    looks = "; ".join(
        f"{query}{'' if number else ' looks most'} at {_argmax(map_)} ({map_.max():.3g})"
        for number, (query, map_) in enumerate(zip(queries, maps, strict=True))
    )  # the words once: longer lines break on a page
    line = f"{name}: {looks}" if name else looks
    if len(maps) > 1:
        distance = average_cosine_distance(torch.stack([m.flatten() for m in maps]))
        distance = round(float(distance), 12)  # equal maps have 0, and no rest of rounding
        line += f"\n    average cosine distance of these {len(maps)} maps: {distance:.3g}"
    return line


def space_time(clip: Tensor, attention: Tensor, positions: Sequence[int], query: Position) -> None:
    """Show the map of one query over all frames of a clip.

    Args:
        clip: ``(3, T, H, W)``, uint8 or 0 to 1; T a multiple of the feature map's.
        attention: ``(queries, keys)`` of this clip.
        positions: ``(t, h, w)`` of the feature map.
        query: ``(frame, row, column)`` on the feature map.
    """
    figure, alt, lines = draw_space_time(clip, attention, positions, [query])
    print("\n".join(lines))
    show(figure, alt)


def draw_space_time(
    clip: Tensor, attention: Tensor, positions: Sequence[int], queries: Sequence[Position]
) -> tuple[Figure, str, list[str]]:
    """Draw the maps of some queries over all frames of a clip, a row for each query.

    Args:
        clip: ``(3, T, H, W)``, uint8 or 0 to 1; T a multiple of the feature map's.
        attention: ``(queries, keys)`` of this clip; ``(1, keys)`` where all queries share one map.
        positions: ``(t, h, w)`` of the feature map.
        queries: ``(frame, row, column)`` on the feature map.

    Returns:
        The figure, its alt text, and a line for each query.
    """
    found = [map_of(attention, positions, query).double() for query in queries]
    frames, every = len(found[0]), clip.shape[1] // len(found[0])
    from matplotlib.figure import Figure

    rows = len(found)
    figure = Figure(figsize=(1.7 * frames + 0.6, 2 * rows + 0.2), layout="constrained")
    axes = figure.subplots(rows, frames, squeeze=False)
    low, high = min(m.min().item() for m in found), max(m.max().item() for m in found)
    for line, map_, query in zip(axes, found, queries, strict=True):
        for t, axis in enumerate(line):
            image = clip[:, t * every]
            axis.axis("off")
            _draw_map(axis, image, map_[t], (low, high))
            if t == query[0]:
                _mark(axis, image, tuple(positions)[1:], query[1:])
            axis.set_title(f"frame {t}{': query' if t == query[0] else ''}", fontsize=9)
    figure.colorbar(axes[0][-1].images[-1], ax=list(axes.flat), shrink=0.7, label="attention")
    lines = [
        f"query {query}: attention on each frame "
        f"{', '.join(f'{share:.3g}' for share in map_.flatten(1).sum(1))}; most at {_argmax(map_)}"
        for query, map_ in zip(queries, found, strict=True)
    ]
    alt = "; ".join(
        f"the query in frame {query[0]} looks most at frame {_argmax(map_)[0]}"
        for query, map_ in zip(queries, found, strict=True)
    )
    return figure, f"{frames} frames of a clip with attention over them: {alt}.", lines


def _draw_image(axis: Axes, image: Tensor) -> None:
    pixels = image.detach().cpu()
    if not pixels.is_floating_point():
        pixels = pixels.double() / 255
    axis.imshow(pixels.clamp(0, 1).permute(1, 2, 0).numpy())


def _draw_map(axis: Axes, image: Tensor, map_: Tensor, limits: tuple[float, float]) -> None:
    """The map at the image's size, over the image in grey, so that both can be seen."""
    size = image.shape[-2:]
    pixels = image.detach().cpu().double().mean(0)
    low, high = limits if limits[1] > limits[0] else (limits[0] - 1, limits[0] + 1)
    enlarged = F.interpolate(map_[None, None], size=size, mode="nearest")[0, 0]
    axis.imshow(pixels.numpy(), cmap="gray")
    axis.imshow(enlarged.numpy(), cmap=HEAT, vmin=low, vmax=high, alpha=0.75)


def _mark(
    axis: Axes, image: Tensor, positions: Sequence[int], query: Position, text: str = ""
) -> None:
    (height, width), (rows, columns) = image.shape[-2:], tuple(positions)
    y = (query[0] + 0.5) * height / rows - 0.5
    x = (query[1] + 0.5) * width / columns - 0.5
    for colour, line in (("white", 2.5), (COLOURS[1], 1.2)):
        axis.scatter(x, y, s=70, facecolors="none", edgecolors=colour, linewidths=line)
    if text:
        from matplotlib.patheffects import withStroke

        right = x > 0.85 * width  # there the text stands on the left, inside of the image
        axis.annotate(
            text,
            (x, y),
            (-5 if right else 5, 4),
            textcoords="offset points",
            color="white",
            size=8,
            ha="right" if right else "left",
            path_effects=[withStroke(linewidth=2, foreground="black")],  # on bright skies too
        )


def _argmax(map_: Tensor) -> Position:
    index = torch.unravel_index(map_.argmax(), map_.shape)
    return tuple(int(i) for i in index)


def _alt(maps: Mapping[str, Sequence[Tensor]]) -> str:
    distances = []
    for name, found in maps.items():
        if len(found) > 1:
            distance = average_cosine_distance(torch.stack([m.flatten() for m in found])).item()
            alike = "nearly the same" if distance < 0.01 else "different"
            distances.append(f"{name or 'the image'}: the maps of its queries are {alike}")
    return "Attention maps over images, the query of each marked by a ring. " + "; ".join(distances)
