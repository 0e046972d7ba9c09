#!/usr/bin/env python
"""Classifies pictures with a trained run: `python scripts/classify.py RUN_DIR picture.png ...`.

Prints a line a picture: its path, and the likeliest classes with their probabilities, separated by tabs. Draws what the
model attended to into DIR/NAME-attention.png. Pictures of any size and colour are made to fit the model.

A picture that cannot be read is reported, and the others are classified.

Exit codes: 0 all classified, 1 some not or none, 2 an argument that is not understood, 130 interrupted by Ctrl-C.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from _command import add_run_options, device, run, whole

from attnlab.errors import UserError


def parse() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser)
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="of any size and mode")
    parser.add_argument("--top", type=whole(), default=3, metavar="N", help="classes to name (default: 3)")
    parser.add_argument("--mode", metavar="MODE", help="test mode of the model (default: the one that selected it)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the attention is drawn (default: RUN_DIR/classified)"
    )
    return parser.parse_args()


def main() -> int:
    options = parse()

    from attnlab.experiment.use import load_config, load_run
    from attnlab.files import check_folder

    load_config(options.run)  # before the slow imports
    folder = options.out or options.run / "classified"
    check_folder(folder)
    trained = load_run(options.run, options.checkpoint, "vision")

    import torch

    from attnlab.attention import reading
    from attnlab.data.images import read_image
    from attnlab.experiment.domains.vision import draw_attention, read_state

    state = read_state(options.run)
    task = trained.task.to(device(options.device))
    mode = trained.check_mode(options.mode or trained.modes[0])
    seed = trained.config.get("seed", 0) if options.seed is None else options.seed
    mean, std = (torch.tensor(state[name]).view(-1, 1, 1) for name in ("mean", "std"))
    failed = 0
    named_before: Counter[str] = Counter()
    for path in options.pictures:
        try:
            image = read_image(path, state).to(task.device)
        except UserError as error:
            print(f"attnlab: {error}", file=sys.stderr)
            failed += 1
            continue
        named_before[path.stem] += 1
        number = f"-{named_before[path.stem]}" if named_before[path.stem] > 1 else ""
        with reading(task.model, mode):
            torch.manual_seed(seed)
            shares, classes = task.predict(image)[0].exp().sort(descending=True)
            named = [f"{state['classes'][c]} {p:.1%}" for p, c in zip(shares.tolist(), classes.tolist(), strict=True)]
            picture = (image[0].cpu() * std + mean).clamp(0, 1)
            torch.manual_seed(seed)  # draws what the label came from
            draw_attention(task, image, picture, folder / f"{path.stem}{number}-attention.png", named[0])
        print("\t".join([str(path), *named[: options.top]]))
    if named_before:
        print(f"What was attended to is drawn in {folder}.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
