"""Recordings from wherever the user keeps them, the splits that are made of them, and what cannot be used."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cases_speech import LETTER_SECONDS, say, write_manifest, write_sound

from multistep.core.values.plan import DataSpec
from multistep.data.names import SPLITS
from multistep.data.sources import read_parts
from multistep.errors import DataError
from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.audio import Unusable, commonest_rate, read_samples
from multistep.tasks.speech.baseline import fit_baseline, score
from multistep.tasks.speech.corpus import Corpus, load_corpus, survey
from multistep.tasks.speech.features import LogMel, default_features
from multistep.tasks.speech.files import FORM, Listing, listing_of
from multistep.tasks.speech.nets import output_length
from multistep.tasks.speech.splits import Splits, read_splits
from multistep.tasks.speech.words import spoken_words


def listing(source: Path, **columns: Any) -> Listing:
    data = DataSpec(source=str(source), **columns)
    (table,) = read_parts(str(source), data, FORM).values()
    return listing_of(table, data)


def loaded(splits: Splits, alphabet: Alphabet | None = None) -> Corpus:
    found = survey({name: splits.of(name) for name in SPLITS})
    return load_corpus(
        found, default_features(commonest_rate(found.rates)), output_length, alphabet or Alphabet.of(found.texts)
    )


def rows_of(folder: Path, count: int, **columns: Mapping[int, object]) -> list[dict[str, object]]:
    """Rows of sounds that exist, with further columns by row."""
    found = []
    for i in range(count):
        write_sound(folder / f"{i}.wav", "ab", seed=i)
        found.append({"path": f"{i}.wav", "text": "ab", **{name: values[i] for name, values in columns.items()}})
    return found


# Sources --------------------------------------------------------------------------------------------


def test_manifests_of_each_kind_give_the_same_rows(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", "ab")
    (tmp_path / "a.csv").write_text('file_name,transcription\nx.wav,"a, b"\n', encoding="utf-8")
    (tmp_path / "b.tsv").write_text("path\tsentence\nx.wav\ta, b\n", encoding="utf-8")
    nemo = {"audio_filepath": "x.wav", "duration": 0.3, "text": "a, b"}
    (tmp_path / "c.jsonl").write_text(json.dumps(nemo) + "\n", encoding="utf-8")
    for name in ("a.csv", "b.tsv", "c.jsonl"):
        (row,) = listing(tmp_path / name).rows
        assert (row.path, row.text, row.seconds) == (tmp_path / "x.wav", "a, b", None)
    (row,) = listing(tmp_path / "a.csv").rows
    assert row.where == f"{tmp_path}/a.csv:2"


def test_columns_are_guessed_aloud_or_named(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", "ab")
    manifest = tmp_path / "m.csv"
    manifest.write_text("n,take,said,speaker\n1,x.wav,ab,me\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"which column holds the transcripts\? Say data\.text_column; columns: 'n'"):
        listing(manifest)
    listed = listing(manifest, text_column="said")
    assert listed.rows[0].path == tmp_path / "x.wav"
    assert listed.rows[0].speaker == "me"
    assert any("paths are in column 'take'" in note for note in listed.notes)
    with pytest.raises(DataError, match="Did you mean 'said'"):
        listing(manifest, text_column="sayd")


def test_part_of_a_sound_is_cut_out(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", "abcd")
    row = {"audio_filepath": "x.wav", "text": "bc", "offset": 0.12, "duration": 0.24}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (found,) = listing(tmp_path / "m.jsonl").rows
    samples = read_samples(found.path, 8000, found.start, found.seconds)
    assert len(samples) == 1920
    assert np.allclose(samples, say("abcd")[960:2880], atol=1e-4)


def parts(folder: Path, rows: list[dict[str, object]]) -> Splits:
    """A manifest as NeMo writes it, with validation beside it."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "parts.jsonl").write_text(text, encoding="utf-8")
    (folder / "dev.jsonl").write_text(json.dumps({"audio_filepath": "x.wav", "text": "a"}) + "\n", encoding="utf-8")
    return read_splits(DataSpec(train=str(folder / "parts.jsonl"), validation=str(folder / "dev.jsonl")))


def test_a_part_from_the_beginning_is_no_longer_than_it_says(tmp_path: Path) -> None:
    """With or without an offset of its own, where other rows are parts of the same sound."""
    write_sound(tmp_path / "x.wav", "abcd")
    soundfile.write(tmp_path / "long.flac", np.tile(say("ab"), 300), 8000)  # 87 s
    short = {"audio_filepath": "x.wav", "text": "a", "offset": 0, "duration": 0.24}
    long = {"audio_filepath": "long.flac", "text": "a", "duration": 1.0}
    whole = {"audio_filepath": "./x.wav", "text": "abcd", "duration": 0.24}  # NeMo tells the length of every sound
    corpus = loaded(parts(tmp_path, [short, long, {**long, "offset": 61.5}, {**long, "offset": 0.0}, whole]))
    features = default_features(8000)
    samples = [1920, 8000, 8000, 8000, len(say("abcd"))]
    assert corpus.splits["train"].lengths.tolist() == [features.length(count) for count in samples]
    assert not any("longer than" in note for note in corpus.notes)


def test_a_part_outside_its_sound_is_counted_and_named(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", "abcd")
    seconds = len(say("abcd")) / 8000
    row = {"audio_filepath": "x.wav", "text": "a", "offset": 0.1, "duration": 0.3}
    rows = [{**row, "offset": 0.01 * i} for i in range(27)]
    rows += [{**row, "offset": -0.1}, {**row, "offset": 9.0}, {**row, "duration": 2.0}]
    rows.append({**row, "duration": seconds - 0.05})  # ends 0.05 s behind: lengths in lists are rounded
    corpus = loaded(parts(tmp_path, rows))
    path = tmp_path / "parts.jsonl"
    (said,) = (note for note in corpus.notes if note.startswith("train: 3 of 31 rows cannot be used"))
    assert f"1 with an offset below 0 (first: {path}:28: {tmp_path}/x.wav)" in said
    assert f"2 with a part that goes past the end of its sound (first: {path}:29: {tmp_path}/x.wav)" in said
    assert len(corpus.splits["train"]) == 28
    for wrong in ({"duration": None}, {"duration": "long"}, {"offset": float("nan")}):
        with pytest.raises(DataError, match=r"parts\.jsonl:1: 'offset' needs a 'duration' beside it, both in seconds"):
            parts(tmp_path, [{**row, **wrong}])


def test_folders_with_transcripts_beside_the_sounds(tmp_path: Path) -> None:
    for name in ("deep/x.wav", "y.flac"):
        write_sound(tmp_path / name, "ab").with_suffix(".txt").write_text("A b\n", encoding="utf-8")
    write_sound(tmp_path / "bare.wav", "ab")
    listed = listing(tmp_path)
    assert [row.path.name for row in listed.rows] == ["x.wav", "y.flac"]
    assert "bare.wav" in listed.notes[0]


def test_librispeech_and_its_splits(tmp_path: Path) -> None:
    for part, speaker in (
        ("train-clean-100", "19"),
        ("train-clean-360", "20"),
        ("dev-clean", "31"),
        ("test-clean", "45"),
    ):
        folder = tmp_path / part / speaker / "7"
        for i in range(2):
            write_sound(folder / f"{speaker}-7-000{i}.flac", "ab")
        lines = "".join(f"{speaker}-7-000{i} AB BA\n" for i in range(2))
        (folder / f"{speaker}-7.trans.txt").write_text(lines, encoding="utf-8")
    splits = read_splits(DataSpec(source=str(tmp_path)))
    assert [len(splits.of(name)) for name in SPLITS] == [4, 2, 2]
    assert {row.speaker for row in splits.train} == {"19", "20"}
    assert any("2 folders or tables make up train" in note for note in splits.notes)
    corpus = loaded(splits)
    assert corpus.splits["train"].texts[0] == "ab ba"
    assert any("lower case" in note for note in corpus.notes)


# Splits ---------------------------------------------------------------------------------------------


def test_a_split_column_is_honoured_and_validation_cut_from_train(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 40, split={i: "test" if i < 8 else "training" for i in range(40)})
    splits = read_splits(DataSpec(source=str(write_manifest(tmp_path / "m.csv", rows))))
    assert [len(splits.of(name)) for name in SPLITS] == [28, 4, 8]
    again = read_splits(DataSpec(source=str(tmp_path)))
    assert [row.path for row in again.validation] == [row.path for row in splits.validation]
    rows[0]["split"] = "trian"
    with pytest.raises(DataError, match=r"m\.csv:2: unknown split 'trian'.* Did you mean 'train'"):
        read_splits(DataSpec(source=str(write_manifest(tmp_path / "m.csv", rows))))


def test_columns_are_known_by_their_names_in_any_case(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 24, Speaker={i: f"s{i % 8}" for i in range(24)}, Split=dict.fromkeys(range(24), "Test"))
    for row in rows[:16]:
        row["Split"] = "Train"
    splits = read_splits(DataSpec(source=str(write_manifest(tmp_path / "m.csv", rows))))
    assert sum(len(splits.of(name)) for name in SPLITS[:2]) == 16
    assert [row.path.name for row in splits.test] == [f"{i}.wav" for i in range(16, 24)]
    assert [row.speaker for row in splits.test] == [f"s{i}" for i in range(8)]
    assert any("speakers are in column 'Speaker'" in note for note in splits.notes)


def test_with_enough_speakers_nobody_is_in_two_splits(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 40, speaker={i: f"s{i % 8}" for i in range(40)})
    splits = read_splits(DataSpec(source=str(write_manifest(tmp_path / "m.csv", rows))))
    heard = [{row.speaker for row in splits.of(name)} for name in SPLITS]
    assert sum(map(len, heard)) == 8
    assert len(set.union(*heard)) == 8
    few = rows_of(tmp_path, 40, speaker={i: f"s{i % 2}" for i in range(40)})
    splits = read_splits(DataSpec(source=str(write_manifest(tmp_path / "m.csv", few))))
    assert {row.speaker for row in splits.validation} == {"s0", "s1"}


# What cannot be used --------------------------------------------------------------------------------


def test_what_cannot_be_used_is_counted_and_named(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 80)
    for row in rows[:4]:
        row["path"] = f"other-{row['path']}"
    (tmp_path / "other-0.wav").write_bytes(b"RIFF no sound at all")
    soundfile.write(tmp_path / "other-1.wav", np.zeros(0, np.float32), 8000)
    soundfile.write(tmp_path / "other-2.wav", np.zeros(61 * 8000, np.float32), 8000)
    rows[4]["text"] = " ?"
    rows[5]["text"] = "ab" * 200
    manifest = write_manifest(tmp_path / "m.csv", [{**row, "split": "train"} for row in rows])
    more = write_manifest(tmp_path / "more.csv", rows[10:14])
    splits = read_splits(DataSpec(train=str(manifest), validation=str(more), test=str(more)))
    corpus = loaded(splits)
    assert len(corpus.splits["train"]) == 74
    said = "\n".join(corpus.notes)
    for what in ("not a sound file", "holds no sound", "longer than 60 s", "no such file", "without a transcript"):
        assert what in said
    assert f"with a transcript longer than its sound can hold (first: {manifest}:7: {tmp_path}/5.wav)" in said
    assert "4 of 4 sounds are in train too" in said
    for row in rows[20:40]:
        row["path"] = "nowhere.wav"
    bad = write_manifest(tmp_path / "bad.csv", rows)
    with pytest.raises(DataError, match=r"train: 2\d of .*no such file .*too many"):
        loaded(read_splits(DataSpec(train=str(bad), validation=str(more))))


def test_rates_and_channels_may_be_mixed(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 30)
    stereo = np.stack((say("ab", 44_100), 0.5 * say("ab", 44_100)), 1)
    soundfile.write(tmp_path / "0.wav", stereo, 44_100)
    corpus = loaded(
        read_splits(DataSpec(train=str(write_manifest(tmp_path / "m.csv", rows)), validation=str(tmp_path / "m.csv")))
    )
    assert any("1 of 30 sounds are resampled to 8000 Hz (from 44100)" in note for note in corpus.notes)
    one, other = corpus.splits["train"].lengths[:2]
    assert abs(int(one) - int(other)) <= 1
    assert commonest_rate([44_100, 44_100, 8000]) == 16_000
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 8000, subtype="FLOAT")
    with pytest.raises(Unusable, match="not finite"):
        read_samples(tmp_path / "nan.wav", 8000)


def test_characters_that_train_lacks_count_as_errors(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 20)
    train = write_manifest(tmp_path / "train.csv", rows)
    held_out = write_manifest(tmp_path / "dev.csv", [{**row, "text": "abz"} for row in rows[:5]])
    corpus = loaded(read_splits(DataSpec(train=str(train), validation=str(held_out))))
    (said,) = (
        note for note in corpus.notes if "5 of 5 transcripts have characters that the model cannot write" in note
    )
    assert said.endswith(f"(z), each an error (first: {held_out}:2: abz)"), "file and row of the list"
    clips = corpus.splits["validation"]
    assert clips.texts[0] == "abz"
    assert clips.unknown.tolist() == [1] * 5
    assert clips.characters() == 15


def test_an_alphabet_that_cannot_spell_the_training_transcripts_is_refused(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 40)
    for row in rows[:3]:
        row["text"] = "你好 你"
    manifest = str(write_manifest(tmp_path / "m.csv", rows))
    splits = read_splits(DataSpec(train=manifest, validation=manifest))
    corpus = loaded(splits, Alphabet(("", "a", "b")))
    assert (
        f"train: 3 of 40 rows cannot be used: 3 without a character that the model can write (first: {manifest}:2:"
        in (" ".join(corpus.notes))
    )
    assert all(corpus.splits["train"].labels), "of a batch without labels there would be no mean loss"
    assert len(corpus.splits["validation"]) == 40, "there they are errors"
    with pytest.raises(
        DataError, match=r"train: 46 of 83 characters .* none that the model can write \(such as b 你 好\)"
    ):
        loaded(splits, Alphabet(("", "a")))


def test_no_sounds_and_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no sounds; allowed: a manifest"):
        listing(tmp_path)
    (tmp_path / "m.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"m\.json: which column holds the paths"):
        listing(tmp_path / "m.json")
    (tmp_path / "m.txt").write_text("a b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"not a source of recordings; allowed: a manifest"):
        listing(tmp_path / "m.txt")
    with pytest.raises(DataError, match="no such file or folder"):
        listing(tmp_path / "nothing")


# Features, baseline, the synthesiser ----------------------------------------------------------------


def test_features_show_pitch_and_not_level() -> None:
    features = LogMel(8000, 40)
    samples = say("b")[: round(LETTER_SECONDS * 8000)]
    frames = features(samples).astype(np.float32)
    assert frames.shape == (features.length(len(samples)), 40)
    loudest = features.centres[frames.mean(0).argmax()]
    assert abs(loudest - 900) < 150
    assert np.allclose(features(0.1 * samples), frames, atol=0.02)


def test_the_baseline_is_the_stronger_of_two(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for i in range(60):
        text = ("a", "d", "a c", "d")[i % 4]
        write_sound(tmp_path / f"{i}.wav", text, seed=i)
        rows.append({"path": f"{i}.wav", "text": text, "split": ("train", "validation", "train")[i % 3]})
    corpus = loaded(read_splits(DataSpec(source=str(write_manifest(tmp_path / "m.csv", rows)))))
    train, validation = corpus.splits["train"], corpus.splits["validation"]
    found = fit_baseline(train, validation)
    assert found.name.startswith("logistic regression")
    table = score(found, validation)
    assert table.columns["errors"].sum() < 0.3 * table.columns["words"].sum()
    assert np.isfinite(table.columns["loss"]).all()


def test_spoken_words_are_the_same_in_every_process() -> None:
    pytest.importorskip("espeakng_loader")
    made = spoken_words()
    voices = [{word.speaker for word in made if word.split == split} for split in SPLITS]
    assert not voices[0] & (voices[1] | voices[2])
    total = hashlib.sha256(b"".join(word.samples.tobytes() for word in made)).hexdigest()
    code = (
        "import hashlib; from multistep.tasks.speech.words import spoken_words\n"
        "print(hashlib.sha256(b''.join(w.samples.tobytes() for w in spoken_words())).hexdigest())"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == total


def test_without_the_synthesiser_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DataError, match=r'pip install "multistep\[demos\]"'):
        spoken_words.__wrapped__()
