from types import SimpleNamespace

import datasets
import pytest
import pytorch_lightning as pl
import torch

from attnlab.data.batching import Batch
from attnlab.data.corpora import Corpus
from attnlab.data.tokenizers import BOS, EOS, PAD, UNK
from attnlab.data.translation import TranslationData
from attnlab.errors import UserError

SINGULAR = [
    ("der Hund", "The dog"),
    ("die Katze", "The cat"),
    ("das Haus", "The house"),
    ("ein Haus", "A house"),
]


class Given(Corpus):
    """Rows as they are written here; counts how often it is loaded."""

    def __init__(self, train, validation=(), test=(), **columns):
        self.loads = 0
        self.splits = {"train": train, "validation": validation or train, "test": test or train}
        self.columns = columns

    def load(self):
        self.loads += 1
        return {
            name: datasets.Dataset.from_dict(
                {"source": [s for s, _ in rows], "target": [t for _, t in rows]}
                | {column: [value] * len(rows) for column, value in self.columns.items()}
            )
            for name, rows in self.splits.items()
        }


def prepared(corpus, **options):
    data = TranslationData(corpus, **options)
    data.prepare()
    return data


def test_encoded_splits_read_back_as_their_text():
    data = prepared(Given(SINGULAR, test=SINGULAR[::-1]))
    test = data.splits["test"]
    assert len(test) == 4
    assert test.source_texts == [source for source, _ in SINGULAR[::-1]]
    assert [data.tokenizers.source.decode(row) for row in test.source] == test.source_texts
    assert [data.tokenizers.target.decode(row) for row in test.target] == test.target_texts
    assert test.sure is test.possible is test.tags is None


def test_prepare_does_its_work_once():
    corpus = Given(SINGULAR)
    data = prepared(corpus)
    pair = data.tokenizers
    data.prepare()
    data.setup("fit")
    assert corpus.loads == 1
    assert data.tokenizers is pair


def test_only_the_training_split_is_learned_from():
    data = prepared(Given(SINGULAR, validation=[("der Zug", "The train"), ("der Hund", "The dog")]))
    assert data.splits["validation"].source[0].tolist().count(UNK) == 1
    summary = data.summary()
    assert summary["validation/source_unknown"] == summary["validation/target_unknown"] == 0.25
    assert summary["vocabulary/source"] == 4 + 7
    assert (summary["train/pairs"], summary["validation/pairs"], summary["train/dropped"]) == (4, 2, 0)
    assert summary["train/source_length"] == 2.0


def test_batches_hold_every_row_with_its_own_target():
    data = prepared(Given(SINGULAR * 5), max_sentences=3)
    for loader, split in [(data.train_dataloader(), "train"), (data.val_dataloader(), "validation")]:
        rows = []
        for batch in loader:
            assert isinstance(batch, Batch)
            for source, target_in, target_out, index in zip(*batch, strict=True):
                rows.append(int(index))
                assert data.tokenizers.source.decode(source) == data.splits[split].source_texts[index]
                assert data.tokenizers.target.decode(target_out) == data.splits[split].target_texts[index]
                length = int((target_out != PAD).sum())
                assert target_in[0] == BOS
                assert target_in[1:length].tolist() == target_out[: length - 1].tolist()
                assert target_out[length - 1] == EOS
        assert sorted(rows) == list(range(20))
        assert len(loader) == 7


def test_token_limits_of_training_and_evaluation():
    data = prepared(Given(SINGULAR * 5), max_tokens=6, eval_max_tokens=30)
    assert max(batch.source.numel() for batch in data.train_dataloader()) == 6  # 2 rows of 2 tokens and EOS
    assert max(batch.source.numel() for batch in data.test_dataloader()) == 30


class Recorder(pl.LightningModule):
    """Learns nothing and writes down the rows of each batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, _):
        self.seen.setdefault(self.current_epoch, []).append(batch.index.tolist())
        return self.weight

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, epochs, tmp_path, **options):
    model = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,
    )
    trainer.fit(
        model,
        datamodule=data,
        ckpt_path=tmp_path / "last.ckpt" if (tmp_path / "last.ckpt").exists() else None,
    )
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return model.seen


@pytest.mark.filterwarnings("ignore")
def test_lightning_draws_each_epoch_anew_and_a_resumed_run_draws_the_same(tmp_path):
    def data():
        return TranslationData(Given(SINGULAR * 10), max_sentences=4, seed=3)

    seen = fit(data(), 3, tmp_path / "whole", enable_checkpointing=False)
    assert len({str(batches) for batches in seen.values()}) == 3
    for batches in seen.values():
        assert sorted(row for batch in batches for row in batch) == list(range(40))
    fit(data(), 1, tmp_path / "resumed", enable_checkpointing=False)
    assert fit(data(), 3, tmp_path / "resumed", enable_checkpointing=False) == {1: seen[1], 2: seen[2]}


def test_long_pairs_are_left_out_of_training_only(caplog):
    long = [("der Hund " * 4, "The dog"), ("der Hund", "The dog " * 4)]
    with caplog.at_level("INFO", logger="attnlab"):
        data = prepared(Given([long[0], *SINGULAR, long[1]]), max_length=5)
    train = data.splits["train"]
    assert data.dropped == data.summary()["train/dropped"] == 2
    assert "2 training pairs" in caplog.text
    assert train.target_texts == [target for _, target in SINGULAR]
    assert [data.tokenizers.target.decode(row) for row in train.target] == train.target_texts
    assert len(data.splits["test"]) == 6
    with pytest.raises(UserError, match="max_length=1"):
        prepared(Given(SINGULAR), max_length=1)


def test_tags_follow_the_source_as_symbols():
    data = prepared(Given(SINGULAR, tags="N;DAT"), tokenizer={"kind": "character"})
    source = data.tokenizers.source
    assert source.tokens(data.splits["test"].source[0]) == [*"der", "·", *"Hund", "<N>", "<DAT>"]
    assert source.decode(data.splits["test"].source[0]) == "der Hund"
    assert data.tokenizers.target.symbols == ()
    assert data.splits["test"].tags == ["N;DAT"] * 4
    assert data.tokenizers.encode_sources(["der Hund"], ["N;DAT"])[0] == data.splits["test"].source[0].tolist()


def test_alignments_are_kept():
    links = [[0, 0], [1, 1]]
    data = prepared(Given(SINGULAR, sure=links, possible=links), max_length=9)
    assert data.splits["train"].sure == data.splits["train"].possible == [links] * 4


def test_joint_vocabulary():
    data = prepared(Given(SINGULAR), tokenizer={"kind": "bpe", "vocabulary": 60, "joint": True})
    assert data.tokenizers.joint
    both = data.tokenizers.source
    assert UNK not in both.encode(["der house"])[0]


def test_given_tokenizers_are_used():
    pair = prepared(Given(SINGULAR)).tokenizers
    data = TranslationData(Given([("der Zug", "The dog")]))
    data.use_tokenizers(pair)
    data.prepare()
    assert data.tokenizers is pair
    assert data.splits["train"].source[0].tolist() == [*pair.source.encode(["der"])[0], UNK]
    with pytest.raises(RuntimeError, match="before prepare"):
        data.use_tokenizers(pair)


def test_references_are_raw_unless_lower_cased():
    assert prepared(Given(SINGULAR)).references("test")[0] == "The dog"
    lower = prepared(Given(SINGULAR), tokenizer={"lowercase": True})
    assert lower.references("test")[0] == "the dog"
    assert lower.splits["test"].target_texts[0] == "The dog"


def test_mistakes_are_explained():
    with pytest.raises(UserError, match=r"no option vocab: .*vocabulary"):
        TranslationData(Given(SINGULAR), tokenizer={"vocab": 3})
    for name in ("max_tokens", "max_sentences", "max_length", "eval_max_tokens"):
        with pytest.raises(UserError, match=f"data.{name}=0"):
            TranslationData(Given(SINGULAR), **{name: 0})
    with pytest.raises(UserError, match=r"'dev'.*train, validation, test"):
        prepared(Given(SINGULAR)).loader("dev")
    with pytest.raises(RuntimeError, match="prepare"):
        TranslationData(Given(SINGULAR)).loader("train")


def test_processes_share_training_batches_and_the_validation_split():
    parts = []
    for rank in range(2):
        data = prepared(Given(SINGULAR * 5, validation=SINGULAR + SINGULAR[:1]), max_sentences=3)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        parts.append(data)
    whole = prepared(Given(SINGULAR * 5), max_sentences=3)
    for batch, *shares in zip(*(data.train_dataloader() for data in (whole, *parts)), strict=True):
        assert sorted(row for share in shares for row in share.index.tolist()) == sorted(batch.index.tolist())
    seen = [[row for batch in data.val_dataloader() for row in batch.index.tolist()] for data in parts]
    assert [sorted(rows) for rows in seen] == [[0, 2, 4], [1, 3]]
    texts = parts[1].splits["validation"].source_texts
    for batch in parts[1].val_dataloader():
        for source, row in zip(batch.source, batch.index.tolist(), strict=True):
            assert data.tokenizers.source.decode(source) == texts[row]
    assert sorted(row for batch in parts[1].loader("test") for row in batch.index.tolist()) == list(range(20))
