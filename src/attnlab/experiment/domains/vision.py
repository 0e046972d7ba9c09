"""Runs of image classification."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from attnlab.data.images import ImageData
from attnlab.errors import UserError
from attnlab.evaluation.images import draw_confusion, draw_glimpses, draw_maps, rollout, to_grid
from attnlab.experiment.domains.base import Domain, Tested
from attnlab.files import write_bytes, write_json
from attnlab.tasks.scoring import score_modes
from attnlab.tasks.vision import VisionTask
from attnlab.tasks.vision_scoring import VisionOutcome, focus, score

STATE = "images.json"
"""The file of a run directory that says how pictures are read for its model."""


class Vision(Domain):
    """Images to classes."""

    task = VisionTask
    models = MappingProxyType({"attnlab.nn.vit.ViT": "vit", "attnlab.nn.glimpse.GlimpseViT": "glimpse_vit"})
    data = "attnlab.data.images"
    example = "digits"

    def sizes(self, config: dict[str, Any], data: ImageData | None) -> dict[str, Any]:
        if data is None:  # any size that the patches divide
            side = max(1, int(config["model"]["patch"])) * 32
            return {"channels": 1, "height": side, "width": side, "classes": 10}
        return {
            "channels": data.channels, "height": data.height, "width": data.width, "classes": len(data.classes),
        }  # fmt: skip

    def save(self, data: ImageData, directory: Path) -> None:
        write_json(directory / STATE, data.state())

    def restore(self, data: ImageData, directory: Path) -> None:
        data.use_state(read_state(directory))

    def examples(self, data: ImageData, split: str) -> Iterator[bytes]:
        for image in data.splits[split].images:
            yield image.numpy().tobytes()

    def describe(self, data: ImageData) -> str:
        return (
            f"{len(data.splits['train']):,} training images of {data.height} x {data.width} pixels in "
            f"{len(data.classes)} classes"
        )

    def outcomes(
        self, task: VisionTask, data: ImageData, config: dict[str, Any], split: str, modes: tuple[str, ...], seed: int
    ) -> dict[str, VisionOutcome]:
        draws = config["search"]["draws"]
        return score_modes(partial(score, task, data, split), task.model, modes, seed=seed, draws=draws)

    def test(self, task: VisionTask, data: ImageData, config: dict[str, Any], directory: Path) -> Tested:
        outcomes = self.outcomes(task, data, config, "test", task.model.modes, config["seed"])
        outcome = next(iter(outcomes.values()))
        folder = directory / "attention"
        shutil.rmtree(folder, ignore_errors=True)
        confusion = directory / "confusion.png"
        draw_confusion(confusion, outcome.confusion, data.classes)
        pictures, maps = {"confusion": confusion}, []
        split = data.splits["test"]
        count = min(config["maps"], len(split))
        for number in range(count):
            row = number * len(split) // count  # spread evenly, and so the same for every variant
            picture = split.images[row]
            said = outcome.predictions[row]
            title = f"{said['label']}, predicted {said['prediction']} ({said['probability']:.0%})"
            box = None if split.boxes is None else torch.as_tensor(split.boxes[row])
            path = folder / f"test-{row:05d}.png"
            image = data.normalize(picture.unsqueeze(0)).to(task.device)
            found = draw_attention(task, image, picture / 255, path, title, box)
            pictures[path.stem] = path
            plain = path.with_stem(f"{path.stem}_image")
            _write_picture(picture, plain)
            rounded = [[round(weight, 4) for weight in line] for line in found.tolist()]
            maps.append(
                {
                    "kind": "image",
                    "row": row,
                    "image": f"attention/{plain.name}",
                    "label": said["label"],
                    "map": rounded,
                }
            )
        return Tested(dict(outcomes), pictures, maps)


def _write_picture(picture: Tensor, path: Path) -> None:
    """Writes uint8 [C, H, W] as a PNG, small ones enlarged without smoothing."""
    pixels = picture.permute(1, 2, 0).squeeze(-1).numpy()
    image = Image.fromarray(pixels)
    times = max(1, 240 // max(image.size))
    buffer = BytesIO()
    image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST).save(buffer, "png")
    write_bytes(path, buffer.getvalue())


def read_state(directory: Path) -> dict[str, Any]:
    """How pictures are read for the model of a run; UserError where the file is missing or damaged."""
    path = directory / STATE
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); the run cannot be used.") from error
    return state


def draw_attention(
    task: VisionTask, image: Tensor, picture: Tensor, path: Path, title: str, box: Tensor | None = None
) -> Tensor:
    """Draws what a classifier reads of one image: the chosen patches, or the maps of its layers.

    Args:
        task: the classifier.
        image: normalised [1, C, H, W].
        picture: the same from 0 to 1, [C, H, W].
        path: of the PNG.
        title: above it.
        box: of the object, [4] in pixels, where it is known.

    Returns:
        where it looks, [rows, columns], summing to 1.
    """
    model = task.model
    rows, columns = model.grid
    weights = model.maps(image)
    chosen = model.chosen(image)
    focused = focus(task, weights, chosen)[0].cpu()
    if chosen is not None:
        draw_glimpses(path, picture, chosen[0], model.patch, columns, box=box, title=title)
        return focused

    def read(layer: Tensor) -> Tensor:  # [..., T, S] -> [..., rows, columns]: of the class token, else of all tokens
        row = layer[..., 0, :] if model.leading else layer.mean(-2)
        return to_grid(row, rows, columns, model.leading)

    flow = rollout([layer for name, layer in weights.items() if name != "pooling"])
    if "pooling" in weights:
        flow = weights["pooling"].mean(1).to(flow.dtype) @ flow
    maps = {name: read(layer[0]) for name, layer in weights.items()}
    draw_maps(path, picture, maps, read(flow[0]), title)
    return focused
