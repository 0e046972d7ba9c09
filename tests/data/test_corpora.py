import json
import os
import subprocess
import sys

import datasets
import pytest

from attnlab.data.corpora import HubCorpus, Phrasebook
from attnlab.errors import UserError

PAIRS = [
    {"en": "A man.", "de": "Ein Mann."},
    {"en": "A dog.", "de": "Ein Hund."},
    {"en": "No.", "de": "Nein."},
]
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def offline_with_a_cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write(folder, **splits):
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def full(folder, rows=PAIRS, **splits):
    return write(folder, **(dict.fromkeys(SPLITS, rows) | splits))


def load(folder, source="en", target="de", **options):
    return HubCorpus(str(folder), source, target, **options).load()


def test_a_folder_gives_three_splits_with_our_column_names(tmp_path):
    folder = full(tmp_path / "pairs", test=PAIRS[:1])
    before = sorted(folder.iterdir())
    splits = load(folder)
    assert list(splits) == list(SPLITS)
    assert splits["train"][:] == {
        "source": ["A man.", "A dog.", "No."],
        "target": ["Ein Mann.", "Ein Hund.", "Nein."],
    }
    assert len(splits["test"]) == 1
    assert sorted(folder.iterdir()) == before
    assert not datasets.are_progress_bars_disabled()


def test_a_file_that_changed_and_kept_its_time_is_read_anew(tmp_path):
    folder = full(tmp_path / "pairs")
    assert load(folder)["train"]["target"][0] == "Ein Mann."
    file = folder / "train.jsonl"
    then = file.stat().st_mtime_ns
    file.write_text(file.read_text().replace("Ein Mann.", "Kein Mann"))
    os.utime(file, ns=(then, then))
    assert load(folder)["train"]["target"][0] == "Kein Mann"


def test_columns_may_have_each_others_names(tmp_path):
    folder = full(tmp_path / "pairs", [{"source": "a", "target": "b"}])
    assert load(folder, "target", "source")["train"][0] == {"source": "b", "target": "a"}


def test_tags_and_nested_columns(tmp_path):
    folder = full(tmp_path / "pairs", [{"translation": {"en": "a", "de": "b"}, "tags": "N;SG", "more": 1}])
    splits = load(folder, "translation.en", "translation.de", tags="tags")
    assert splits["test"][0] == {"source": "a", "target": "b", "tags": "N;SG"}


def test_splits_may_be_renamed_or_cut(tmp_path):
    folder = write(tmp_path / "pairs", train=PAIRS * 4, test=PAIRS[:2])
    splits = load(folder, splits={"validation": "test", "train": "train[:75%]", "test": "train[75%:]"})
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 9, "validation": 2, "test": 3}


def test_a_saved_data_set(tmp_path):
    saved = datasets.DatasetDict({split: datasets.Dataset.from_list(PAIRS) for split in SPLITS})
    saved.save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved")["test"]["target"][:] == ["Ein Mann.", "Ein Hund.", "Nein."]


def test_limit_keeps_the_first_training_rows_only(tmp_path):
    splits = load(full(tmp_path / "pairs"), limit=2)
    assert splits["train"]["source"][:] == ["A man.", "A dog."]
    assert len(splits["test"]) == 3
    assert len(load(tmp_path / "pairs", limit=99)["train"]) == 3


def test_blank_pairs_are_left_out_and_counted(tmp_path, caplog):
    blank = [{"en": "a", "de": " \n"}, {"en": "", "de": "b"}]
    splits = load(full(tmp_path / "pairs", blank + PAIRS, validation=PAIRS))
    assert [len(splits[split]) for split in SPLITS] == [3, 3, 3]
    assert splits["test"]["source"][:] == ["A man.", "A dog.", "No."]
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == ["2 of 5 rows"] * 2


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({}, {"target": "fr"}, "no column 'fr'.*en, de.*data.target="),
        (
            {},
            {"splits": {"validation": "dev"}},
            "no split 'dev'.*train, validation, test.*data.splits.validation=",
        ),
        ({}, {"splits": {"validation": "dev[:9%]"}}, "dev.*data.splits"),
        ({}, {"splits": {"valid": "dev"}}, r"valid.*train, validation, test"),
        ({}, {"limit": 0}, "data.limit=0"),
        ({}, {"source": "de"}, "columns of their own"),
        ({}, {"name": "fr"}, "fr.*default"),
        ({"test": [*PAIRS, {"en": None, "de": "b"}]}, {}, "Row 4 of the split 'test'.*'en' holds None"),
        ({"train": [*PAIRS, {"en": "a", "de": 3}]}, {}, "Row 4 of the split 'train'.*'de' holds 3"),
        ({split: [{"en": 1, "de": "b"}] for split in SPLITS}, {}, "Row 1 of the split 'train'.*'en' holds 1"),
        ({"validation": [{"en": "", "de": "b"}]}, {}, "every row has a blank side"),
        ({"validation": []}, {}, "validation.jsonl is empty"),
    ],
)
def test_mistakes_are_explained(tmp_path, splits, options, message):
    folder = full(tmp_path / "pairs", **splits)
    with pytest.raises(UserError, match=message):
        load(folder, **options)


def test_an_empty_split(tmp_path, monkeypatch):
    for split, rows in {"train": "a,b\n", "validation": "", "test": "a,b\n"}.items():
        (tmp_path / f"{split}.csv").write_text(f"en,de\n{rows}")
    with pytest.raises(UserError, match=r"not one row.*validation"):
        load(tmp_path)
    empty = datasets.Dataset.from_list(PAIRS).select([])  # as another version of the library may read it
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: dict.fromkeys(SPLITS, empty))
    with pytest.raises(UserError, match=r"'train'.*not one row"):
        load(tmp_path)


def test_without_a_validation_split_one_can_be_cut(tmp_path):
    folder = write(tmp_path / "pairs", train=PAIRS, test=PAIRS)
    with pytest.raises(UserError, match=r"no split 'validation'.*train, test.*data\.splits\.validation.*train\[95%:\]"):
        load(folder)


def test_a_line_in_another_encoding_is_named(tmp_path):
    for split in SPLITS:
        (tmp_path / f"{split}.csv").write_text("en,de\nA dog,Ein Hund\n")
    (tmp_path / "test.csv").write_bytes("en,de\nA dog,Ein Hund\nGreetings,Grüße\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"test\.csv, line 3 is not UTF-8 .*Mend or remove it"):
        load(tmp_path)


def test_files_that_are_no_data_files_are_told_which_are(tmp_path):
    (tmp_path / "train.en").write_text("A dog.\n")
    with pytest.raises(UserError, match=r"holds no data files\. It needs train\.jsonl, .*a column for each side"):
        load(tmp_path)


def test_a_malformed_line_is_named(tmp_path):
    folder = full(tmp_path / "pairs")
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"en": "a", "de"\n')
    with pytest.raises(UserError, match=r"train.jsonl, line 4 is not JSON"):
        load(folder)


def test_a_folder_that_is_missing_empty_or_a_file(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        load(tmp_path / "nothing")
    with pytest.raises(UserError, match="no data files"):
        load(tmp_path)
    (tmp_path / "file.jsonl").touch()
    with pytest.raises(UserError, match="is a file"):
        load(tmp_path / "file.jsonl")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach 'owner/name' on the Hub"),
            "could not be reached.*data.path=/folder",
        ),
        (TimeoutError(), "could not be reached.*HF_HUB_OFFLINE"),
        (datasets.exceptions.DatasetNotFoundError("none"), "has no such data set"),
        (RuntimeError("Dataset scripts are no longer supported.\nMore"), "no longer supported. Mend"),
    ],
)
def test_the_hub_fails(monkeypatch, error, message):
    asked = {}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def refuse(*arguments, **options):
        asked.update(arguments=arguments, options=options)
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=f"data.path=owner/name is no local folder.*{message}"):
        load("owner/name")
    assert asked == {
        "arguments": ("owner/name", None),
        "options": {},
    }  # trust_remote_code, above all, is not given


def test_the_hub_is_not_asked_when_offline():
    with pytest.raises(UserError, match=r"could not be reached .*cache of this machine does not have it") as refused:
        load("owner/name")
    assert "HF_HUB_OFFLINE" not in str(refused.value)


def test_a_hub_whose_name_is_not_known_is_asked_once():
    script = "from attnlab.data.corpora import HubCorpus; HubCorpus('owner/name', 'a', 'b').load()"
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment.pop("HF_HUB_OFFLINE", None)
    environment["HF_ENDPOINT"] = "https://hub.invalid"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert "could not be reached" in ran.stderr.splitlines()[-1]
    assert "Retrying" not in ran.stderr


def test_phrasebook():
    splits = Phrasebook(train=20, validation=5, test=5, generation_seed=1).load()
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 5, "test": 5}
    assert {"source", "target", "sure", "possible"} <= set(splits["train"].column_names)
