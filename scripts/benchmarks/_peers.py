"""Other toolkits' models and their training, each where it is installed in the same environment.

Each translator trains a model of the same sizes with its own code, in the way its own training does: OpenNMT-py 3.5
(Klein et al. 2017) through its Trainer, JoeyNMT 2.3 (Kreutzer et al. 2019) through the calls of its training step.
Their projects pin older versions of other packages; `pip install --no-deps OpenNMT-py joeynmt vit-pytorch` and what
they then miss serves.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks import _machine

if TYPE_CHECKING:
    from torch import Tensor

    from attnlab.data.batching import Batch
    from attnlab.data.translation import TranslationData

T = TypeVar("T")

CLIP = 1.0
"""The greatest norm of the gradient, in all toolkits."""
DROPOUT = 0.1
LEARNING_RATE = 0.001
RNN = {"embedding": 256, "encoder_size": 256, "decoder_size": 512, "readout_size": 512}
"""Sizes of the recurrent model, by the names that our configs give them; one layer each."""
ALIGNMENT = 512  # width of the layer of additive attention, which OpenNMT-py makes as wide as the decoder
TRANSFORMER = {"embedding": 256, "depth": 3, "heads": 4, "hidden": 512}
"""Sizes of the Transformer."""


@dataclass(frozen=True)
class Shape:
    """Which of the models is trained."""

    model: str  # rnn or transformer
    score: str
    feeding: bool


_TRAINED = (
    "task=translation", "model.tie_output=false", "model.share_embeddings=false", f"model.dropout={DROPOUT}",
    "optimizer=adam", "optimizer.fused=true", f"optimizer.lr={LEARNING_RATE}",
    f"trainer.gradient_clip_val={CLIP}",
)  # fmt: skip
_PACKAGES = {"OpenNMT-py": "onmt", "JoeyNMT": "joeynmt", "vit-pytorch": "vit_pytorch"}
_SCORES = {
    "OpenNMT-py": {"additive": "mlp", "general": "general", "dot": "dot"},
    "JoeyNMT": {"additive": "bahdanau", "general": "luong"},
}
PRECISIONS = {"OpenNMT-py": ("fp32", "tf32"), "JoeyNMT": ("fp32",)}
"""In which each toolkit trains."""

Training = Callable[[Iterable["Batch"]], None]
"""Trains on every batch it is given."""
Searching = Callable[["Batch", int], list[tuple[list[int], int]]]
"""Of each source of a batch, the tokens that a search of a beam width finds and the steps that it made."""


def overrides(shape: Shape) -> list[str]:
    """The words of `train.py` that choose such a model of ours, and train it as the others are."""
    if shape.model == "transformer":
        sizes, chosen = TRANSFORMER, ["attention=scaled"]
    else:
        sizes = RNN
        feeding = str(shape.feeding).lower()
        chosen = ["model.cell=lstm", "model.layers=1", "model/decoder=luong", f"model.decoder.input_feeding={feeding}"]
        chosen += ["attention=luong", f"attention/score={shape.score}"]
        chosen += [f"attention.score.size={ALIGNMENT}"] if shape.score == "additive" else []
    return [f"model={shape.model}", *chosen, *(f"model.{name}={size}" for name, size in sizes.items()), *_TRAINED]


def available(shape: Shape) -> list[str]:
    """The toolkits that are installed and have such a model."""
    known = [name for name in _SCORES if shape.model == "transformer" or shape.score in _SCORES[name]]
    return [name for name in known if name in versions()]


def training(name: str, shape: Shape, data: "TranslationData") -> tuple[int, Training]:
    """Of a toolkit's model: the number of parameters, and its training."""
    return _made({"OpenNMT-py": _opennmt, "JoeyNMT": _joeynmt}[name], shape, data)


def _made(make: Callable[..., tuple[Any, T]], shape: Shape, data: "TranslationData", *more: Any) -> tuple[int, T]:
    """A model's number of parameters, and what comes with it."""
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
        model, found = make(shape, len(data.tokenizers.source), len(data.tokenizers.target), *more)
    return sum(parameter.numel() for parameter in model.parameters()), found


def versions() -> dict[str, str]:
    """Of the toolkits that are installed."""
    return {name: version(name) for name, package in _PACKAGES.items() if find_spec(package)}


def public_vit() -> Any:
    """lucidrains' `vit_pytorch.ViT`, from its own file: the package imports others that need torchvision."""
    package = find_spec("vit_pytorch")
    assert package is not None
    found = spec_from_file_location("vit_pytorch_vit", Path(package.origin or "").with_name("vit.py"))
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module.ViT


def _specials() -> list[str]:
    """Names for the special tokens, in the order of our ids."""
    from attnlab.data.tokenizers import BOS, EOS, PAD, UNK

    names = {PAD: "<blank>", UNK: "<unk>", BOS: "<s>", EOS: "</s>"}
    return [names[number] for number in sorted(names)]


def _opennmt_model(shape: Shape, source: int, target: int) -> tuple[Any, Any, dict[str, Any]]:
    """A model, its options, and its vocabularies."""
    import pyonmttok
    from onmt import opts
    from onmt.model_builder import build_model
    from onmt.utils.parse import ArgumentParser

    logging.getLogger().setLevel(logging.ERROR)
    words: dict[str, Any] = {
        "data": "none", "src_vocab": "none", "dropout": DROPOUT, "attention_dropout": DROPOUT, "optim": "adam",
        "learning_rate": LEARNING_RATE, "max_grad_norm": CLIP, "normalization": "tokens", "report_every": 10**9,
    }  # fmt: skip
    if shape.model == "rnn":
        words |= {
            "encoder_type": "brnn", "decoder_type": "rnn", "rnn_type": "LSTM", "layers": 1,
            "word_vec_size": RNN["embedding"], "hidden_size": RNN["decoder_size"], "input_feed": int(shape.feeding),
            "global_attention": _SCORES["OpenNMT-py"][shape.score],
        }  # fmt: skip
    else:
        words |= {
            "encoder_type": "transformer", "decoder_type": "transformer", "layers": TRANSFORMER["depth"],
            "heads": TRANSFORMER["heads"], "transformer_ff": TRANSFORMER["hidden"], "position_encoding": "true",
            "word_vec_size": TRANSFORMER["embedding"], "hidden_size": TRANSFORMER["embedding"],
        }  # fmt: skip
    if _machine.on_gpu():  # the model, its losses and its trainer go there
        words |= {"gpu_ranks": 0, "world_size": 1}
    parser = ArgumentParser()
    opts.train_opts(parser)
    given = [word for name, value in words.items() for word in (f"--{name}", str(value)) if word != "true"]
    options, _ = parser.parse_known_args(given)
    options.data = {}
    ArgumentParser.update_model_opts(options)
    specials = _specials()
    vocabularies = {
        side: pyonmttok.build_vocab_from_tokens([str(n) for n in range(size - len(specials))], special_tokens=specials)
        for side, size in (("src", source), ("tgt", target))
    } | {"data_task": "seq2seq"}
    return build_model(options, options, vocabularies, None, _opennmt_device()), options, vocabularies


def _opennmt_device() -> int:
    """The number of the device that is measured, by which OpenNMT-py goes."""
    return 0 if _machine.on_gpu() else -1


def _opennmt(shape: Shape, source: int, target: int) -> tuple[Any, Training]:
    import torch
    from onmt.trainer import build_trainer
    from onmt.utils.optimizers import Optimizer

    model, options, vocabularies = _opennmt_model(shape, source, target)
    optimizer = Optimizer.from_opt(model, options)
    trainer = build_trainer(options, _opennmt_device(), model, vocabularies, optimizer)

    def train(batches: Iterable["Batch"]) -> None:
        from attnlab.data.tokenizers import PAD

        def theirs() -> Iterator[tuple[dict[str, Any], int]]:
            for batch in batches:
                parts = {
                    "src": batch.source.unsqueeze(-1),
                    "srclen": (batch.source != PAD).sum(1),
                    "tgt": torch.cat([batch.target_in[:, :1], batch.target_out], 1).unsqueeze(-1),
                }
                yield {name: _machine.placed(part) for name, part in parts.items()}, 0

        with warnings.catch_warnings(action="ignore"):
            trainer.train(theirs(), 0, save_checkpoint_steps=0, valid_steps=10**9)

    return model, train


def searching(name: str, shape: Shape, data: "TranslationData", certain: float) -> tuple[int, Searching]:
    """Of a toolkit's model: the number of parameters, and its own search.

    Hypotheses end after as many steps as their references have tokens, with the end symbol, which is `certain` nats
    more likely than by the model there and as much less likely before.
    """
    return _made({"OpenNMT-py": _opennmt_search, "JoeyNMT": _joeynmt_search}[name], shape, data, certain)


def _opennmt_search(shape: Shape, source: int, target: int, certain: float) -> tuple[Any, Searching]:
    import torch
    from onmt.translate.beam_search import BeamSearch, GNMTGlobalScorer
    from onmt.translate.translator import Translator

    from attnlab.data.tokenizers import BOS, EOS, PAD, UNK

    class Ended(BeamSearch):
        def __init__(self, steps: torch.Tensor, width: int, scorer: Any) -> None:
            super().__init__(
                width, len(steps), PAD, BOS, EOS, UNK, BOS, 1, scorer, min_length=0, max_length=int(steps.max()),
                return_attention=False, block_ngram_repeat=0, exclusion_tokens=set(), stepwise_penalty=None, ratio=0.0,
                ban_unk_token=False,
            )  # fmt: skip
            self.steps = steps

        def ensure_min_length(self, log_probs: torch.Tensor) -> None:
            # whose sources are left it knows on the processor, also where it searches on a GPU
            ends = self.steps[self.batch_offset].repeat_interleave(self.beam_size) == len(self)
            log_probs[:, EOS] += torch.where(ends, certain, -certain).to(log_probs.device)

    model, _, vocabularies = _opennmt_model(shape, source, target)
    model.eval()
    scorer = GNMTGlobalScorer(0.0, 0.0, "none", "none")
    vocabularies["decoder_start_token"] = _specials()[BOS]
    translator = Translator(model, vocabularies, gpu=_opennmt_device(), global_scorer=scorer, report_score=False)

    @torch.no_grad()
    def search(batch: "Batch", width: int) -> list[tuple[list[int], int]]:
        parts = {"src": batch.source.unsqueeze(-1), "srclen": (batch.source != PAD).sum(1)}
        theirs = {name: _machine.placed(part) for name, part in parts.items()}
        strategy = Ended((batch.target_out != PAD).sum(1), width, scorer)
        with warnings.catch_warnings(action="ignore"):
            found = translator._translate_batch_with_strategy(theirs, strategy)["predictions"]
        return [(best[:-1].tolist(), len(best)) for best, *_ in found]  # without the end symbol

    return model, search


def _joeynmt_model(shape: Shape, source: int, target: int) -> Any:
    from joeynmt.model import build_model
    from joeynmt.vocabulary import Vocabulary

    if shape.model == "rnn":
        common = {
            "type": "recurrent", "rnn_type": "lstm", "num_layers": 1, "dropout": DROPOUT,
            "embeddings": {"embedding_dim": RNN["embedding"], "scale": False, "dropout": DROPOUT},
        }  # fmt: skip
        encoder = common | {"hidden_size": RNN["encoder_size"], "bidirectional": True}
        decoder = common | {
            "hidden_size": RNN["decoder_size"], "hidden_dropout": DROPOUT, "input_feeding": shape.feeding,
            "init_hidden": "bridge", "attention": _SCORES["JoeyNMT"][shape.score],
        }  # fmt: skip
    else:
        width = TRANSFORMER["embedding"]
        embeddings = {"embedding_dim": width, "scale": True, "dropout": DROPOUT}
        encoder = decoder = {
            "type": "transformer", "num_layers": TRANSFORMER["depth"], "num_heads": TRANSFORMER["heads"],
            "hidden_size": width, "ff_size": TRANSFORMER["hidden"], "dropout": DROPOUT, "embeddings": embeddings,
            "layer_norm": "pre",
        }  # fmt: skip
    order = ("unk", "pad", "bos", "eos")  # its vocabulary takes this one; `_swapped` knows how ours differs
    specials = {f"{name}_id": number for number, name in enumerate(order)} | {f"{n}_token": f"<{n}>" for n in order}
    settings = SimpleNamespace(**specials, lang_tags=[], sep_token=None)
    vocabularies = [Vocabulary([str(n) for n in range(size - len(order))], settings) for size in (source, target)]
    model = build_model({"encoder": encoder, "decoder": decoder, "tied_softmax": False}, *vocabularies)
    return _machine.placed(model)


def _swapped(ids: "Tensor") -> "Tensor":
    """JoeyNMT's ids for ours, and ours for its: padding and the unknown word have each other's numbers."""
    return ids.where(ids > 1, 1 - ids)


def _joeynmt_source(ids: "Tensor", pad: int) -> dict[str, "Tensor"]:
    """What its encoder reads of sources [B, S] in its ids, the longest first."""
    given = ids != pad
    return {"src": ids, "src_length": given.sum(1), "src_mask": given.unsqueeze(1)}


def _joeynmt(shape: Shape, source: int, target: int) -> tuple[Any, Training]:
    from joeynmt.builders import build_gradient_clipper, build_optimizer

    model = _joeynmt_model(shape, source, target)
    model.loss_function = ("crossentropy", 0.0)
    optimizer = build_optimizer({"optimizer": "adam", "learning_rate": LEARNING_RATE}, model.parameters())
    clip = build_gradient_clipper({"clip_grad_norm": CLIP, "clip_grad_val": None})

    def train(batches: Iterable["Batch"]) -> None:
        model.train()
        for batch in batches:
            src, seen, target = (_swapped(ids) for ids in batch[:3])
            rows = (src != model.pad_index).sum(1).argsort(descending=True)
            src, seen, target = src[rows], seen[rows], target[rows]
            real = target != model.pad_index
            parts = _joeynmt_source(src, model.pad_index)
            parts |= {"trg_input": seen, "trg": target, "trg_mask": real.unsqueeze(1)}
            placed = {name: _machine.placed(part) for name, part in parts.items()}
            loss, _, _, correct = model(return_type="loss", **placed)
            loss = loss / int(real.sum())
            loss.backward()
            loss.item(), correct.item()
            clip(parameters=model.parameters())
            optimizer.step()
            model.zero_grad()

    return model, train


def _joeynmt_search(shape: Shape, source: int, target: int, certain: float) -> tuple[Any, Searching]:
    import torch
    from joeynmt.search import beam_search, greedy

    from attnlab.data.tokenizers import EOS, PAD

    model = _joeynmt_model(shape, source, target).eval()
    left = torch.empty(0)  # how many steps each row of its search has yet to make

    def end(_model: Any, _args: Any, words: dict[str, Any], given: tuple[Any, ...]) -> None:
        """Decides in the logits of the last position about the end symbol."""
        nonlocal left
        if words["return_type"] != "decode":
            return
        logits = given[0][:, -1]
        if len(logits) < len(left):  # beam search has dropped the sources that have ended, and keeps the order
            left = left[left > 0]
        left = left - 1
        logits[:, model.eos_index] += torch.where(left == 0, certain, -certain)

    model.register_forward_hook(end, with_kwargs=True)

    @torch.no_grad()
    def search(batch: "Batch", width: int) -> list[tuple[list[int], int]]:
        nonlocal left
        rows = (batch.source != PAD).sum(1).argsort(descending=True)
        steps = (batch.target_out[rows] != PAD).sum(1)
        parts = _joeynmt_source(_swapped(batch.source[rows]), model.pad_index)
        parts = {name: _machine.placed(part) for name, part in parts.items()}
        left = _machine.placed(steps.repeat_interleave(width))
        memory, state, _, _ = model(return_type="encode", **parts)
        words = {
            "src_mask": parts["src_mask"], "max_output_length": int(steps.max()), "model": model,
            "encoder_output": memory, "encoder_hidden": state, "min_output_length": 0,
        }  # fmt: skip
        found, _, _ = greedy(**words) if width == 1 else beam_search(beam_size=width, alpha=0.0, **words)
        hypotheses = [row[: row.index(EOS)] for row in _swapped(found[rows.argsort()]).tolist()]
        return [(tokens, len(tokens) + 1) for tokens in hypotheses]

    return model, search
