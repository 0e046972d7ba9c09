import io
import shutil
import struct
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from attnlab.data import images as module
from attnlab.data.image_corpora import ImageCorpus, ImageSplit, LabelledImages, cache_folder, stratified_order
from attnlab.data.images import ImageBatch, ImageData, channel_statistics, digits, hub, read_image
from attnlab.errors import UserError

SPLITS = ("train", "validation", "test")
COLORS = {"blue": (0, 0, 255), "green": (0, 200, 0), "red": (250, 10, 10)}


@pytest.fixture(autouse=True)
def offline_with_caches_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


class Given(ImageCorpus):
    """Random images of these labels; counts how often they are loaded."""

    def __init__(self, train, validation=(0, 1), test=(1, 0), channels=3, height=6, width=5, classes=("a", "b")):
        self.loads = 0
        self.classes = list(classes)
        self.labels = {"train": train, "validation": validation, "test": test}
        self.shape = (channels, height, width)

    def load(self, size=None, on_corrupt="refuse"):
        self.loads += 1
        generator = torch.Generator().manual_seed(0)
        splits = {
            name: ImageSplit(
                torch.randint(256, (len(labels), *self.shape), generator=generator, dtype=torch.uint8),
                torch.tensor(labels),
            )
            for name, labels in self.labels.items()
        }
        return LabelledImages(self.classes, splits)


def prepared(corpus, **options):
    data = ImageData(corpus, **options) if isinstance(corpus, ImageCorpus) else hub(path=str(corpus), **options)
    data.prepare()
    return data


def picture(color, size=(6, 4), mode="RGB"):
    return Image.new("RGB", size, color).convert(mode)


def class_folders(folder, count=2, splits=SPLITS, **options):
    """Folders of `count` pictures a color, in each split."""
    for split in splits:
        for name, color in COLORS.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                picture(color, **options).save(folder / split / name / f"{number}.png")
    return folder


def encoded(image, form="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def saved(folder, column="image", label="label", features=None, **splits):
    """A data set of (bytes, label) rows, as `save_to_disk` writes it."""
    features = features or {column: datasets.Image(decode=False), label: datasets.Value("int64")}
    made = {
        name: datasets.Dataset.from_dict(
            {column: [{"bytes": content, "path": None} for content, _ in rows], label: [row[1] for row in rows]},
            features=datasets.Features(features),
        )
        for name, rows in splits.items()
    }
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return folder


def shades(*labels, size=(4, 4)):
    """One row a label: a grey picture whose level is ten times its label."""
    return [(encoded(Image.new("L", size, 10 * label if isinstance(label, int) else 5)), label) for label in labels]


# --- batches ---------------------------------------------------------------------------------------------------------


def test_batches_have_the_promised_shapes_and_types():
    data = prepared(Given([0, 1, 0, 1, 1]), batch_size=2)
    batches = list(data.train_dataloader())
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    batch = batches[0]
    assert isinstance(batch, ImageBatch)
    assert batch.images.shape == (2, 3, 6, 5)
    assert batch.images.dtype == torch.float32
    assert batch.labels.dtype == batch.partners.dtype == batch.index.dtype == torch.int64
    assert batch.shares.tolist() == [1, 1]
    assert torch.equal(batch.partners, batch.labels)
    assert (data.channels, data.height, data.width, data.classes) == (3, 6, 5, ["a", "b"])


def test_images_are_normalised_by_the_training_split():
    data = prepared(Given([0, 1] * 20), batch_size=40)
    batch = next(iter(data.loader("train")))
    assert torch.allclose(batch.images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(batch.images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    pixels = data.splits["test"].images.float() / 255
    expected = (pixels - data.mean.view(3, 1, 1)) / data.std.view(3, 1, 1)
    assert torch.allclose(next(iter(data.test_dataloader())).images, expected, atol=1e-5)
    assert data.splits["test"].images.dtype == torch.uint8


def test_statistics_are_those_of_all_pixels_and_tolerate_a_constant_channel():
    images = torch.randint(256, (7, 2, 5, 3), dtype=torch.uint8)
    images[:, 1] = 51
    mean, std = channel_statistics(images)
    pixels = images[:, 0].double() / 255
    assert mean.tolist() == pytest.approx([pixels.mean().item(), 0.2])
    assert std.tolist() == pytest.approx([pixels.std(correction=0).item(), 1.0])


def test_each_epoch_has_an_order_of_its_own_that_the_seed_decides():
    def orders(seed):
        loader = prepared(Given([0, 1] * 10), batch_size=8, seed=seed).train_dataloader()
        found = []
        for epoch in range(2):
            loader.batch_sampler.sampler.set_epoch(epoch)
            found.append(torch.cat([batch.index for batch in loader]).tolist())
        return found

    first, second = orders(0)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert orders(0) == [first, second]
    assert orders(1)[0] != first


def test_lightning_sets_the_epoch():
    class Recorder(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.orders = [[], []]

        def training_step(self, batch, _):
            self.orders[self.current_epoch] += batch.index.tolist()
            return self.layer.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    recorder = Recorder()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=2, enable_model_summary=False, **quiet)
    trainer.fit(recorder, train_dataloaders=prepared(Given([0, 1] * 10), batch_size=8).train_dataloader())
    assert sorted(recorder.orders[0]) == list(range(20))
    assert recorder.orders[0] != recorder.orders[1]


def test_evaluation_is_in_order_and_unchanged():
    data = prepared(
        Given([0, 1], validation=[0, 1] * 5), batch_size=2, eval_batch_size=4, augment={"flip": True, "mixup": 1.0}
    )
    batches = list(data.val_dataloader())
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    split = data.splits["validation"]
    assert torch.equal(torch.cat([batch.images for batch in batches]), data.normalize(split.images))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), split.labels)


def test_training_batches_are_augmented_and_mixed():
    data = prepared(Given([0, 1] * 10), batch_size=20, augment={"mixup": 1.0})
    batch = next(iter(data.train_dataloader()))
    images = data.normalize(data.splits["train"].images)
    labels = data.splits["train"].labels
    assert ((batch.shares >= 0) & (batch.shares <= 1)).all()
    assert len(batch.shares.unique()) > 10
    assert torch.equal(batch.labels, labels[batch.index])
    rest = batch.images - batch.shares.view(-1, 1, 1, 1) * images[batch.index]  # (1 - share) * partner
    candidates = (1 - batch.shares).view(-1, 1, 1) * images.flatten(1)  # [batch, rows, pixels]
    found = (rest.flatten(1)[:, None] - candidates).norm(dim=-1)  # [batch, rows]
    assert (found.amin(1) < 1e-3).all()
    assert torch.equal(batch.partners, labels[found.argmin(1)])


def test_a_run_repeats_itself():
    def batch():
        torch.manual_seed(3)
        options = {"crop": 2, "flip": True, "randaugment": 2, "mixup": 0.4}
        return next(iter(prepared(Given([0, 1] * 10), augment=options).train_dataloader()))

    assert all(torch.equal(one, other) for one, other in zip(batch(), batch(), strict=True))


def test_prepare_does_its_work_once():
    corpus = Given([0, 1])
    data = prepared(corpus)
    data.prepare()
    data.setup("fit")
    assert corpus.loads == 1


def test_unprepared_data_and_unknown_splits():
    with pytest.raises(RuntimeError, match="prepare"):
        ImageData(Given([0, 1])).val_dataloader()
    with pytest.raises(UserError, match=r"no split 'dev'.*train, validation, test"):
        prepared(Given([0, 1])).loader("dev")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size=0"),
        ({"eval_batch_size": -1}, "data.eval_batch_size=-1"),
        ({"size": 0}, "data.image_size=0"),
        ({"on_corrupt": "ignore"}, "data.on_corrupt=ignore.*refuse, skip"),
        ({"augment": {"rotate": 1}}, "no option rotate.*crop, flip"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        ImageData(Given([0, 1]), **options)


def test_a_class_without_a_training_image_is_named():
    with pytest.raises(UserError, match="no image of the class cat, eel"):
        prepared(Given([0, 2], classes=["ant", "cat", "dog", "eel"]))
    with pytest.raises(UserError, match="one class, ant"):
        prepared(Given([0, 0], [0], [0], classes=["ant"]))


def test_size_resizes_whatever_the_corpus_gives_and_its_boxes():
    data = prepared(Given([0, 1]), size=12)
    assert data.splits["test"].images.shape == (2, 3, 12, 12)
    assert next(iter(data.val_dataloader())).images.shape == (2, 3, 12, 12)
    split = ImageSplit(torch.zeros(1, 1, 4, 8, dtype=torch.uint8), torch.zeros(1), torch.tensor([[2.0, 1, 8, 4]]))
    assert split.resized(16).boxes.tolist() == [[4, 4, 16, 16]]
    assert split.resized(16).images.shape == (1, 1, 16, 16)


def test_summary_and_state_are_primitives():
    data = prepared(Given([0, 1, 1]))
    assert data.summary() == {
        "train/images": 3, "validation/images": 2, "test/images": 2, "train/skipped": 0, "validation/skipped": 0,
        "test/skipped": 0, "classes": 2, "channels": 3, "height": 6, "width": 5,
    }  # fmt: skip
    state = data.state()
    assert list(state) == ["classes", "channels", "height", "width", "mean", "std", "size"]
    assert all(type(number) is float for number in state["mean"] + state["std"])


# --- digits ----------------------------------------------------------------------------------------------------------


def test_digits_are_split_by_class_and_the_same_each_time():
    data = digits()
    data.prepare()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1197, "validation": 300, "test": 300}
    assert (data.channels, data.height, data.width) == (1, 8, 8)
    assert data.classes == [str(number) for number in range(10)]
    assert data.splits["train"].images.max() == 255
    for split in data.splits.values():
        shares = torch.bincount(split.labels) / len(split)
        assert ((shares > 0.09) & (shares < 0.11)).all()
    again, other = digits(), digits(split_seed=1)
    again.prepare()
    other.prepare()
    assert torch.equal(again.splits["test"].images, data.splits["test"].images)
    assert not torch.equal(other.splits["test"].images, data.splits["test"].images)


def test_digits_splits_are_disjoint_and_complete():
    data = digits(validation=200, test=400)
    data.prepare()
    rows = torch.cat([split.images.flatten(1) for split in data.splits.values()])
    assert len(rows) == 1797
    assert len(rows.unique(dim=0)) == 1797  # no two scans are the same
    with pytest.raises(UserError, match=r"data.validation=900 and data.test=900 leave no training image.*1797"):
        digits(validation=900, test=900).prepare()


def test_every_stretch_of_a_stratified_order_is_stratified():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    order = stratified_order(labels, 4)
    assert sorted(order) == list(range(160))
    for start in range(0, 160, 16):
        assert np.abs(np.bincount(labels[order[start : start + 16]], minlength=3) - [10, 5, 1]).max() <= 1
    assert not np.array_equal(order, stratified_order(labels, 5))


# --- corpora in Hugging Face layout -----------------------------------------------------------------------------------


def test_a_folder_of_class_folders(tmp_path):
    data = prepared(class_folders(tmp_path / "colors"))
    assert data.classes == ["blue", "green", "red"]
    assert (data.channels, data.height, data.width) == (3, 4, 6)
    test = data.splits["test"]
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.images[4, :, 0, 0].tolist() == list(COLORS["red"])


def test_without_splits_validation_and_test_are_held_out_by_class(tmp_path):
    folder = class_folders(tmp_path / "colors", count=10, splits=("",))
    data = prepared(folder, validation_share=0.2, test_share=0.1)
    counts = {name: torch.bincount(split.labels).tolist() for name, split in data.splits.items()}
    assert counts == {"train": [7, 7, 7], "validation": [2, 2, 2], "test": [1, 1, 1]}
    fewer = prepared(folder, validation_share=0.2, test_share=0.1, limit=6)
    assert torch.bincount(fewer.splits["train"].labels).tolist() == [2, 2, 2]
    assert len(fewer.splits["validation"]) == 6


def test_a_validation_split_is_held_out_of_training_and_the_test_split_left_alone(tmp_path):
    folder = saved(tmp_path / "set", train=shades(*[0, 1, 2, 3] * 5), test=shades(0, 1, 2, 3))
    data = prepared(folder, validation_share=0.2)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 16, "validation": 4, "test": 4}
    assert data.splits["validation"].labels.sort().values.tolist() == [0, 1, 2, 3]
    assert data.splits["test"].labels.tolist() == [0, 1, 2, 3]
    for split in data.splits.values():  # images and labels belong together
        assert torch.equal(split.images[:, 0, 0, 0], (10 * split.labels).to(torch.uint8))


def test_other_columns_split_names_and_parquet_files(tmp_path):
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["day", "night"])})
    rows = {"img": [picture("white"), picture("black")] * 3, "kind": [0, 1] * 3}
    for name in ("train", "test"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}.parquet")
    splits = {"validation": "test", "test": "train[:2]"}
    data = prepared(tmp_path, image="img", label="kind", splits=splits)
    assert data.classes == ["day", "night"]
    assert [len(data.splits[name]) for name in SPLITS] == [6, 6, 2]
    assert data.splits["validation"].images[:2, 0, 0, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("label", "given", "classes", "expected"),
    [
        (datasets.Value("string"), ["dog", "ant", "dog", "ant"], None, (["ant", "dog"], [1, 0, 1, 0])),
        (datasets.Value("string"), ["dog", "ant", "dog", "ant"], ["dog", "ant"], (["dog", "ant"], [0, 1, 0, 1])),
        (datasets.Value("int64"), [7, 3, 7, 3], None, (["3", "7"], [1, 0, 1, 0])),
        (datasets.Value("int32"), [1, 0, 1, 0], ["ant", "dog"], (["ant", "dog"], [1, 0, 1, 0])),
        (datasets.Value("bool"), [True, False, True, False], None, (["0", "1"], [1, 0, 1, 0])),
        (datasets.ClassLabel(names=["x", "y"]), [0, 1, 0, 1], ["y", "x"], (["y", "x"], [1, 0, 1, 0])),
    ],
)
def test_labels_may_be_numbers_or_names(tmp_path, label, given, classes, expected):
    rows = [(content, value) for (content, _), value in zip(shades(0, 1, 2, 3), given, strict=True)]
    features = {"image": datasets.Image(decode=False), "label": label}
    data = prepared(saved(tmp_path / "set", features=features, train=rows, validation=rows, test=rows), classes=classes)
    assert (data.classes, data.splits["test"].labels.tolist()) == expected


def test_decoding_happens_once_and_is_kept(tmp_path, monkeypatch):
    folder = class_folders(tmp_path / "colors")
    first = prepared(folder)
    monkeypatch.setattr("attnlab.data.hub_images.decode", lambda *_: pytest.fail("decoded again"))
    second = prepared(folder)
    for name, split in first.splits.items():
        assert torch.equal(split.images, second.splits[name].images)
        assert torch.equal(split.labels, second.splits[name].labels)
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        prepared(folder, image_size=8)
    monkeypatch.undo()


def test_what_came_from_the_hub_is_decoded_once(tmp_path, monkeypatch):
    saved(tmp_path / "set", **dict.fromkeys(SPLITS, shades(0, 1, 2)))
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *names: asked.append(names) or datasets.load_from_disk(tmp_path / "set")
    )
    first = prepared("owner/name")
    monkeypatch.setattr("attnlab.data.hub_images.decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(prepared("owner/name").splits["test"].images, first.splits["test"].images)
    assert asked == [("owner/name", None)] * 2  # trust_remote_code, above all, is not given


def test_images_in_an_archive_with_a_table_of_their_labels(tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "zipped").mkdir()
    for name, color in COLORS.items():
        picture(color).save(tmp_path / "all" / f"{name}.png")
    lines = ["file_name,label", *(f"{name}.png,{name}" for name in COLORS)]
    (tmp_path / "all" / "metadata.csv").write_text("\n".join(lines))
    for split in SPLITS:
        shutil.make_archive(str(tmp_path / "zipped" / split), "zip", tmp_path / "all")
    data = prepared(tmp_path / "zipped")
    assert data.classes == ["blue", "green", "red"]
    assert data.splits["test"].images[data.splits["test"].labels == 2][0, :, 0, 0].tolist() == list(COLORS["red"])


def test_a_changed_folder_and_a_damaged_copy_are_decoded_anew(tmp_path):
    folder = class_folders(tmp_path / "colors")
    prepared(folder)
    picture("white").save(folder / "train" / "red" / "new.png")
    assert len(prepared(folder).splits["train"]) == 7
    for path in cache_folder().glob("images-*/train.images.npy"):
        path.write_bytes(b"rubbish")
    assert len(prepared(folder).splits["train"]) == 7


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_any_mode_is_read(tmp_path, mode):
    features = {"image": datasets.Image(decode=False), "label": datasets.Value("int64")}
    form = "TIFF" if mode == "CMYK" else "PNG"
    rows = [(encoded(picture(color, mode=mode), form), label) for label, color in enumerate(("white", "black"))]
    data = prepared(saved(tmp_path / "set", features=features, train=rows, validation=rows, test=rows))
    assert data.channels == (1 if mode in ("1", "L", "LA") else 3)
    assert [image.unique().tolist() for image in data.splits["test"].images] == [[255], [0]]


def test_one_picture_in_color_makes_all_of_them_colored(tmp_path):
    rows = [(encoded(Image.new("L", (4, 4), 77)), 0), (encoded(picture("red", (4, 4))), 1)]
    data = prepared(saved(tmp_path / "set", train=rows, validation=rows[:1], test=rows[:1]))
    assert data.splits["test"].images[0, :, 0, 0].tolist() == [77, 77, 77]
    assert data.splits["train"].images[1, :, 0, 0].tolist() == [255, 0, 0]


def sixteen_bits(form):
    values = np.array([[0, 257], [32896, 65535]], dtype=np.uint16)
    if form == "PGM":
        return b"P5 2 2 65535\n" + struct.pack(">4H", *values.flatten())
    return encoded(Image.fromarray(values), form)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PGM"])
def test_16_bits_are_scaled_to_8(tmp_path, form):
    rows = [(sixteen_bits(form), 0), (sixteen_bits(form), 1)]
    data = prepared(saved(tmp_path / "set", train=rows, validation=rows, test=rows))
    assert data.splits["test"].images[0].tolist() == [[[0, 1], [128, 255]]]


def test_transparent_parts_are_white_and_turned_pictures_upright(tmp_path):
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    turned = Image.new("RGB", (2, 2), "black")
    turned.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is stored has to be rotated clockwise
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    rows = [(encoded(clear), 0), (buffer.getvalue(), 1)]
    images = prepared(saved(tmp_path / "set", train=rows, validation=rows, test=rows)).splits["test"].images
    assert images[0].unique().tolist() == [255]
    assert images[1, 0].tolist() == [[0, 255], [0, 0]]


def test_images_of_unlike_sizes_are_refused_or_resized(tmp_path):
    folder = class_folders(tmp_path / "colors")
    picture("red", (9, 7)).save(folder / "test" / "red" / "large.png")
    with pytest.raises(UserError, match=r"differ in size.*6x4 pixels.*large.png 9x7.*data.image_size=N"):
        prepared(folder)
    data = prepared(folder, image_size=5)
    assert data.splits["test"].images.shape == (7, 3, 5, 5)
    assert data.splits["test"].images[0, :, 2, 2].tolist() == list(COLORS["blue"])


def corrupt(folder):
    good = (folder / "train" / "red" / "0.png").read_bytes()
    for name, content in {"cut.png": good[:50], "empty.png": b"", "text.png": b"no picture"}.items():
        (folder / "train" / "red" / name).write_bytes(content)
    return folder


def test_corrupt_files_are_named_and_refused(tmp_path):
    folder = corrupt(class_folders(tmp_path / "colors"))
    with pytest.raises(UserError, match=r"red/cut.png cannot be read: .*data.on_corrupt=skip"):
        prepared(folder)


def test_corrupt_files_are_named_and_skipped(tmp_path, caplog):
    folder = corrupt(class_folders(tmp_path / "colors"))
    for _ in range(2):  # decoded, then from the cache
        caplog.clear()
        data = prepared(folder, on_corrupt="skip")
        assert data.splits["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert data.summary()["train/skipped"] == 3
        (warning,) = caplog.messages
        assert warning.startswith("3 images of the split train are left out")
        assert all(name in warning for name in ("cut.png", "empty.png: it is empty", "text.png"))


def test_corrupt_rows_are_named_by_their_number(tmp_path):
    rows = shades(0, 1, 2, 0, 1, 2)
    rows[4] = (rows[4][0][:40], 1)
    folder = saved(tmp_path / "set", train=rows, validation=shades(0, 1), test=shades(0, 1))
    with pytest.raises(UserError, match=r"Row 5 of the split 'train' of .*set cannot be read"):
        prepared(folder)
    data = prepared(folder, on_corrupt="skip")
    assert data.splits["train"].labels.tolist() == [0, 1, 2, 0, 2]
    assert data.splits["train"].images[:, 0, 0, 0].tolist() == [0, 10, 20, 0, 20]


def test_nothing_but_corrupt_files(tmp_path):
    folder = saved(tmp_path / "set", train=shades(0, 1), validation=[(b"", 0), (b"x", 1)], test=shades(0, 1))
    with pytest.raises(UserError, match=r"'validation'.*not one image can be read.*Row 1"):
        prepared(folder, on_corrupt="skip")


def test_a_class_that_loses_all_its_images_is_named(tmp_path):
    folder = saved(tmp_path / "set", train=[*shades(0, 1), (b"", 2)], validation=shades(0), test=shades(0))
    with pytest.raises(UserError, match="no image of the class 2"):
        prepared(folder, on_corrupt="skip")


def test_floating_point_pictures_are_refused(tmp_path):
    rows = [*shades(0, 1), (encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"), 0)]
    with pytest.raises(UserError, match=r"Row 3 .*mode F"):
        prepared(saved(tmp_path / "set", train=rows, validation=rows, test=rows))


def test_an_empty_class_folder_is_named(tmp_path):
    folder = class_folders(tmp_path / "colors")
    (folder / "train" / "violet").mkdir()
    (folder / "train" / "violet" / "notes.txt").write_text("later")
    with pytest.raises(UserError, match=r"class folder .*violet holds no image"):
        prepared(folder)


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({"test": shades(0, 4)}, {}, r"Row 2 of the split 'test'.*label 4.*class list: 0, 1, 2"),
        ({"test": shades(0, 1, -1)}, {"classes": ["a", "b", "c"]}, r"Row 3 of .*label -1.*a, b, c.*data.splits.test"),
        ({"train": [*shades(0, 1, 2), (shades(0)[0][0], None)]}, {}, r"Row 4 of the split 'train'.*no label"),
        ({}, {"image": "img"}, r"no column 'img' in the split 'train'.*image, label.*data.image="),
        ({}, {"label": "kind"}, r"no column 'kind'.*image, label.*data.label="),
        ({}, {"image": "label", "label": "image"}, "'label'.*int64.*data.image="),
        ({}, {"image": "label"}, "both name the column 'label'"),
        ({}, {"splits": {"test": "dev"}}, r"no split 'dev' \(for test\).*train, validation, test.*data.splits.test="),
        ({}, {"splits": {"train": "all"}}, r"no split 'all' \(for train\)"),
        ({}, {"splits": {"dev": "test"}}, "data.splits names dev"),
        ({}, {"classes": ["a", "a"]}, "data.classes"),
        ({}, {"limit": 0}, "data.limit=0"),
        ({}, {"limit": 2}, "no image of the class.*data.limit"),
        ({}, {"test_share": 0.0}, "data.test_share=0.0"),
        ({}, {"test_share": 0.5, "validation_share": 0.5}, "together below 1"),
    ],
)
def test_mistakes_are_explained(tmp_path, splits, options, message):
    splits = dict.fromkeys(SPLITS, shades(0, 1, 2)) | splits
    with pytest.raises(UserError, match=message):
        prepared(saved(tmp_path / "set", **splits), **options)


def test_an_empty_split(tmp_path, monkeypatch):
    rows = datasets.Dataset.from_dict({"image": [], "label": []})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: dict.fromkeys(SPLITS, rows))
    (tmp_path / "train.parquet").touch()
    with pytest.raises(UserError, match=r"the split 'train'.*not one row"):
        prepared(tmp_path)


def test_labels_must_not_be_floats(tmp_path):
    features = {"image": datasets.Image(decode=False), "label": datasets.Value("float32")}
    folder = saved(tmp_path / "set", features=features, **dict.fromkeys(SPLITS, shades(0, 1)))
    with pytest.raises(UserError, match=r"'label'.*type float.*whole numbers or names"):
        prepared(folder)


def test_classes_that_the_data_do_not_have(tmp_path):
    with pytest.raises(UserError, match=r"data.classes names violet.*blue, green, red"):
        prepared(class_folders(tmp_path / "colors"), classes=["red", "violet"])


def test_a_path_that_is_missing_empty_or_a_file(tmp_path):
    with pytest.raises(UserError, match=r"data\.path is empty"):
        hub(path="")
    with pytest.raises(UserError, match="no folder"):
        prepared(tmp_path / "nothing")
    (tmp_path / "void" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no file"):
        prepared(tmp_path / "void")
    picture("red").save(tmp_path / "file.png")
    with pytest.raises(UserError, match="is a file"):
        prepared(tmp_path / "file.png")


def test_a_folder_without_classes_is_explained(tmp_path):
    (tmp_path / "all").mkdir()
    for number in range(4):
        picture("red").save(tmp_path / "all" / f"{number}.png")
    with pytest.raises(UserError, match=r"no column 'label'.*sub-folder for each of its classes"):
        prepared(tmp_path / "all")


def test_a_hub_id_without_a_network_is_explained():
    with pytest.raises(UserError, match=r"owner/name.*could not be reached.*data.path=/folder"):
        prepared("owner/name")


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_picture_is_read_as_the_data_were(tmp_path, mode):
    state = prepared(Given([0, 1], channels=1)).state()
    image = Image.new("L", (11, 9), 255).convert(mode if mode != "I;16" else "L")
    if mode == "I;16":
        image = Image.fromarray(np.full((9, 11), 65535, dtype=np.uint16))
    image.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", state)
    assert read.shape == (1, 1, 6, 5)
    assert read.dtype == torch.float32
    assert torch.allclose(read, torch.full_like(read, (1 - state["mean"][0]) / state["std"][0]))


def test_a_row_of_the_data_is_read_back_from_a_file(tmp_path):
    data = prepared(Given([0, 1]))
    image = data.splits["train"].images[0]
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    assert torch.equal(read_image(str(tmp_path / "a.png"), data.state()), data.normalize(image[None]))


def test_pictures_that_cannot_be_read(tmp_path):
    state = prepared(Given([0, 1])).state()
    (tmp_path / "a.png").write_bytes(b"no picture")
    for path, reason in {"a.png": "no picture", "b.png": "No such file", ".": "directory"}.items():
        with pytest.raises(UserError, match=f"The picture .* cannot be read: .*{reason}.*Give another"):
            read_image(tmp_path / path, state)


def test_the_factories_pass_their_options_on(monkeypatch):
    found = {}
    monkeypatch.setattr(module, "ImageData", lambda corpus, **options: found.update(corpus=vars(corpus), **options))
    module.cluttered_digits(size=40, scale=[10, 20], pieces=2, seed=4)
    assert found["corpus"]["size"] == 40
    assert found["seed"] == 4
    module.digits(test=5, image_size=32)
    assert found["corpus"]["test"] == 5
    assert found["size"] == 32


def test_processes_share_training_batches_and_the_validation_split():
    parts = []
    for rank in range(3):
        data = prepared(Given([0, 1] * 10, validation=[0, 1] * 4), batch_size=8)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=3)
        parts.append(data)
    whole = prepared(Given([0, 1] * 10), batch_size=8)
    for batch, *shares in zip(*(data.train_dataloader() for data in (whole, *parts)), strict=True):
        assert sorted(row for share in shares for row in share.index.tolist()) == sorted(batch.index.tolist())
    seen = [[row for batch in data.val_dataloader() for row in batch.index.tolist()] for data in parts]
    assert seen == [[0, 3, 6], [1, 4, 7], [2, 5]]
    split = data.splits["validation"]
    (batch,) = data.val_dataloader()
    assert torch.equal(batch.images, data.normalize(split.images[batch.index]))
