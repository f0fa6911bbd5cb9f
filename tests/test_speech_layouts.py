"""Recordings as corpora lay them out: which sound, transcript and speaker each row has, and what is said aloud."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
from cases_speech import LETTER_SECONDS, say, write_sound
from pyarrow import parquet

from multistep.core.values.plan import DataSpec
from multistep.data.sources import read_parts
from multistep.errors import DataError
from multistep.tasks.speech.alphabet import Alphabet
from multistep.tasks.speech.audio import Unusable, read_header, read_samples
from multistep.tasks.speech.corpus import load_corpus, survey
from multistep.tasks.speech.features import default_features
from multistep.tasks.speech.files import FORM, Listing, Row, listing_of
from multistep.tasks.speech.splits import read_splits

Told = tuple[str, str, str | None]


def listing(source: Path, root: Path | None = None) -> Listing:
    data = DataSpec(source=str(source), root=None if root is None else str(root))
    (table,) = read_parts(str(source), data, FORM).values()
    return listing_of(table, data)


def told(source: Path, folder: Path) -> list[Told]:
    """The file below `folder`, transcript and speaker of each row."""
    return [(str(row.path.relative_to(folder)), row.text, row.speaker) for row in listing(source).rows]


def write(folder: Path, files: Mapping[str, str | None]) -> Path:
    """Files by their paths: texts, and sounds where there is none."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text, encoding="utf-8")
            continue
        write_sound(path.with_suffix(".wav"), "ab")
        if path.suffix == ".mp3":
            samples, rate = soundfile.read(path.with_suffix(".wav"))
            soundfile.write(path, samples, rate, format="MP3")
            path.with_suffix(".wav").unlink()
        else:
            path.with_suffix(".wav").rename(path)
    return folder


def test_common_voice(tmp_path: Path) -> None:
    head = "client_id\tpath\tsentence\tup_votes\n"
    tables = {"train": ("a", "b"), "dev": ("c",), "test": ("d",), "validated": tuple("abcd"), "other": ("e",)}
    files: dict[str, str | None] = {
        f"{name}.tsv": head + "".join(f"speaker-{x}\tcv_{x}.mp3\tSay {x}\t2\n" for x in held)
        for name, held in tables.items()
    }
    write(tmp_path, {**files, **{f"clips/cv_{x}.mp3": None for x in "abcde"}})
    splits = read_splits(DataSpec(source=str(tmp_path)))
    assert [(row.path, row.text, row.speaker) for row in splits.train] == [
        (tmp_path / f"clips/cv_{x}.mp3", f"Say {x}", f"speaker-{x}") for x in "ab"
    ]
    assert ([row.text for row in splits.validation], [row.text for row in splits.test]) == (["Say c"], ["Say d"])
    notes = "\n".join(splits.notes)
    assert "left out, since their names are not those of splits: other.tsv, validated.tsv" in notes
    assert f"files found by their names below {tmp_path}: clips/ 2" in notes
    assert len(read_samples(splits.train[0].path, 16_000)) >= 0.8 * 2 * LETTER_SECONDS * 16_000
    for name in ("train", "dev", "test"):  # as one downloads a language that has no splits yet
        (tmp_path / f"{name}.tsv").unlink()
    assert len(listing(tmp_path).rows) == 4


def test_ljspeech_and_lists_with_speakers(tmp_path: Path) -> None:
    rows = "LJ1|Dr. A|doctor a\nLJ2|No, 2|no two\nLJ3|Only written|\n"
    write(tmp_path / "lj", {"metadata.csv": rows, **{f"wavs/LJ{i}.wav": None for i in (1, 2, 3)}})
    expected = [("wavs/LJ1.wav", "doctor a", None), ("wavs/LJ2.wav", "no two", None)]
    assert told(tmp_path / "lj", tmp_path / "lj") == [*expected, ("wavs/LJ3.wav", "Only written", None)]
    assert told(tmp_path / "lj" / "metadata.csv", tmp_path / "lj")[:2] == expected
    note = "no header, fields between pipes: file in field 1, transcript in field 3 of 3"
    assert any(note in each for each in listing(tmp_path / "lj").notes)
    vits = "".join(f"wavs/{i}.wav|{i % 2}|say number {i}\n" for i in range(4))
    write(tmp_path / "vits", {"train.txt": vits, **{f"wavs/{i}.wav": None for i in range(4)}})
    assert told(tmp_path / "vits" / "train.txt", tmp_path / "vits")[3] == ("wavs/3.wav", "say number 3", "1")
    (tmp_path / "lj" / "metadata.csv").write_text(rows + "".join("LJ1|a|b\n" for _ in range(20)) + "LJ2|c\n")
    with pytest.raises(DataError, match=r"metadata.csv:24: other than 3 fields between pipes"):
        listing(tmp_path / "lj")


def test_kaldi(tmp_path: Path) -> None:
    for split, ids in (("train", "ab"), ("dev", "c"), ("test", "d")):
        write(
            tmp_path / "data" / split,
            {
                "wav.scp": "".join(f"u{x} wavs/{x}.wav\n" for x in ids),
                "text": "".join(f"u{x} SAY {x}\n" for x in ids) + "lost NOTHING\n",
                "utt2spk": "".join(f"u{x} spk-{x}\n" for x in ids),
            },
        )
    write(tmp_path, {f"wavs/{x}.wav": None for x in "abcd"})
    splits = read_splits(DataSpec(source=str(tmp_path / "data")))
    assert [(row.path, row.text, row.speaker) for row in splits.train] == [
        (tmp_path / f"wavs/{x}.wav", f"SAY {x}", f"spk-{x}") for x in "ab"
    ]
    assert splits.train[0].where == f"{tmp_path}/data/train/text:1"
    assert [len(splits.of(name)) for name in ("validation", "test")] == [1, 1]
    assert any("utterances left out that wav.scp and segments lack: 1 (lost)" in note for note in splits.notes)
    assert any(f"paths are relative to {tmp_path}" in note for note in splits.notes)
    train = tmp_path / "data" / "train"
    (train / "segments").write_text("p ua 0.1 0.25\nq ua 0.25 0.5\n")
    (train / "text").write_text("p FIRST\nq SECOND\n")
    assert [(row.path.name, row.text, row.start, row.seconds) for row in listing(train).rows] == [
        ("a.wav", "FIRST", 0.1, 0.15),
        ("a.wav", "SECOND", 0.25, 0.25),
    ]
    (train / "wav.scp").write_text("ua flac -c -d -s /x/a.flac |\n")
    with pytest.raises(DataError, match=r"wav.scp:1: 'flac -c -d -s /x/a.flac \|' is a command, and none is run here"):
        listing(train)


def test_vctk_has_its_transcripts_in_a_tree_of_their_own(tmp_path: Path) -> None:
    files: dict[str, str | None] = {"speaker-info.txt": "ID AGE\np1 23\n"}
    for speaker in ("p1", "p2"):
        files[f"txt/{speaker}/{speaker}_001.txt"] = f"said by {speaker}\n"
        for microphone in (1, 2):
            files[f"wav48_silence_trimmed/{speaker}/{speaker}_001_mic{microphone}.wav"] = None
    write(tmp_path, files)
    assert told(tmp_path, tmp_path) == [
        (f"wav48_silence_trimmed/{p}/{p}_001_mic1.wav", f"said by {p}\n", p) for p in ("p1", "p2")
    ]
    assert any("sounds of a second microphone left out: 2" in note for note in listing(tmp_path).notes)


def test_timit_and_capitals(tmp_path: Path) -> None:
    for split, speaker in (("TRAIN", "FCJF0"), ("TRAIN", "MDAB0"), ("TEST", "FAKS0")):
        base = f"{split}/DR1/{speaker}/SA1"
        write(tmp_path, {f"{base}.WAV": None, f"{base}.TXT": "0 46797 She had 2 suits.\n", f"{base}.PHN": "0 1 h#\n"})
    splits = read_splits(DataSpec(source=str(tmp_path)))
    found = [(row.text.strip(), row.speaker) for row in (*splits.train, *splits.validation, *splits.test)]
    assert sorted(found) == [("She had 2 suits.", speaker) for speaker in ("FAKS0", "FCJF0", "MDAB0")]
    write(tmp_path / "plain", {"a.WAV": None, "a.TXT": "yes no 0", "b.wav": None, "b.Lab": "no"})
    assert told(tmp_path / "plain", tmp_path / "plain") == [("a.WAV", "yes no 0", None), ("b.wav", "no", None)]


def test_nist_sphere_is_read_and_what_is_not_says_what_to_do(tmp_path: Path) -> None:
    samples = say("ab", seed=0)
    soundfile.write(tmp_path / "a.wav", samples, 8000, format="NIST", subtype="PCM_16")
    assert (tmp_path / "a.wav").read_bytes()[:7] == b"NIST_1A"
    assert len(read_samples(tmp_path / "a.wav", 8000)) == len(samples)
    (tmp_path / "shorten.wav").write_bytes(b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2\nend_head\n")
    with pytest.raises(Unusable, match=r"a SPHERE file that soundfile cannot read, .* convert it by sph2pipe"):
        read_header(tmp_path / "shorten.wav")
    for i in range(5):
        write(tmp_path / "phone", {f"{i}.m4a": "no sound", f"{i}.txt": "said"})
    with pytest.raises(
        DataError, match=r"5 of 5 rows cannot be used: 5 a .m4a, which soundfile cannot read: convert it"
    ):
        survey({"train": listing(tmp_path / "phone").rows})


def test_lists_of_ids_and_stm(tmp_path: Path) -> None:
    lines = "".join(f"10_{i}\tsaid in {i}\n" for i in range(3))
    write(
        tmp_path / "mls",
        {"transcripts.txt": lines + "lost\tx\n", **{f"audio/10/7/10_{i}.flac": None for i in range(3)}},
    )
    assert told(tmp_path / "mls", tmp_path / "mls") == [
        (f"audio/10/7/10_{i}.flac", f"said in {i}", None) for i in range(3)
    ]
    assert any(
        "lines left out, since no sound, or several, have their name: 1 (first: line 4)" in n
        for n in listing(tmp_path / "mls").notes
    )
    aishell = {f"wav/{split}/S{i}/B{i}.wav": None for i, split in enumerate(("train", "dev", "test"))}
    said = "".join(f"B{i} 而 对 {i}\n" for i in range(3))
    write(tmp_path / "aishell", {**aishell, "transcript/aishell.txt": said})
    splits = read_splits(DataSpec(source=str(tmp_path / "aishell")))  # which are the folders of the sounds
    assert any(note.endswith("splits are the folders of the sounds: train, dev, test") for note in splits.notes)
    assert [[row.text for row in splits.of(s)] for s in ("train", "validation", "test")] == [
        ["而 对 0"],
        ["而 对 1"],
        ["而 对 2"],
    ]
    stm = ";; a comment\ntalk 1 Ann 0.10 0.30 <o,f0,female> well then\ntalk 1 Bob 0.3 0.5 yes\n"
    stm += "talk 1 Ann 0.5 0.6 <o> ignore_time_segment_in_scoring\n"
    write(tmp_path / "ted", {"stm/talk.stm": stm, "stm/talk.sph": None})
    rows = listing(tmp_path / "ted" / "stm" / "talk.stm").rows
    assert [(row.path.name, row.text, row.speaker, row.start) for row in rows] == [
        ("talk.sph", "well then", "Ann", 0.1),
        ("talk.sph", "yes", "Bob", 0.3),
    ]
    assert [row.seconds for row in rows] == pytest.approx([0.2, 0.2])
    (tmp_path / "ted" / "sph").mkdir()
    (tmp_path / "ted" / "stm" / "talk.sph").rename(tmp_path / "ted" / "sph" / "talk.sph")
    assert {row.path for row in listing(tmp_path / "ted").rows} == {tmp_path / "ted" / "sph" / "talk.sph"}


def test_lists_with_fields_and_lists_of_splits(tmp_path: Path) -> None:
    """What stands between the name of a sound and its transcript is never learnt as a part of it."""
    rows = "".join(f"14_{i}.wav\t14\tsaid in {i}\n" for i in range(3))
    sounds: dict[str, str | None] = {f"14/14_{i}.wav": None for i in range(3)}
    write(tmp_path / "magic", {**sounds, "TRANS.txt": "UtteranceID\tSpeakerID\tTranscription\n" + rows})
    assert told(tmp_path / "magic", tmp_path / "magic") == [(f"14/14_{i}.wav", f"said in {i}", "14") for i in range(3)]
    files = {f"wavs/{i}.wav": None for i in range(3)}
    lines = [f"wavs/{i}.wav|ann|well, {i} of them\n" for i in range(3)]
    write(tmp_path / "vits", {**files, "train.txt": "".join(lines[:2]), "val.txt": lines[2]})
    splits = read_splits(DataSpec(source=str(tmp_path / "vits")))
    assert [row.text for row in splits.train] == ["well, 0 of them", "well, 1 of them"]
    assert [row.text for row in splits.validation] == ["well, 2 of them"]
    write(tmp_path / "korean", {"a/K1.wav": None, "a/K2.wav": None, "train.trn": "a/K1.wav :: 아\na/K2.wav :: 몬\n"})
    assert [text for _, text, _ in told(tmp_path / "korean", tmp_path)] == ["아", "몬"]
    write(tmp_path / "jsut", {"wav/B_1.wav": None, "wav/B_2.wav": None, "transcript.txt": "B_1:水を\nB_2:木の 葉\n"})
    assert [text for _, text, _ in told(tmp_path / "jsut", tmp_path)] == ["水を", "木の 葉"]


def test_thchs_has_three_lines_for_each_sound_and_names_of_files_in_its_splits(tmp_path: Path) -> None:
    for split, speaker in (("train", "A2"), ("dev", "B3"), ("test", "C4")):
        said = f"绿 是 {speaker}\nlv4 shi4\nl v4 sh ix4\n"
        write(tmp_path, {f"data/{speaker}_0.wav.trn": said, f"{split}/{speaker}_0.wav": None})
        write(tmp_path, {f"{split}/{speaker}_0.wav.trn": f"../data/{speaker}_0.wav.trn\n"})
    splits = read_splits(DataSpec(source=str(tmp_path)))
    found = [(row.text, row.speaker) for name in ("train", "validation", "test") for row in splits.of(name)]
    assert found == [("绿 是 A2", "A2"), ("绿 是 B3", "B3"), ("绿 是 C4", "C4")]
    assert any("of a .trn the first line is what is said (1 files)" in note for note in splits.notes)


def test_lists_mean_the_sounds_nearest_to_them(tmp_path: Path) -> None:
    """Sounds of one name lie in each submission to VoxForge; another one's was taken for it."""
    for who in ("anon-2008-abc", "bob-2009-xyz"):
        prompts = "".join(f"{who}/mfc/a{i} WORDS {i} OF {who[:3]}\n" for i in range(3))
        write(tmp_path / "vox" / who, {"etc/PROMPTS": prompts, **{f"wav/a{i}.wav": None for i in range(3)}})
    assert told(tmp_path / "vox", tmp_path / "vox") == [
        (f"{who}/wav/a{i}.wav", f"WORDS {i} OF {who[:3]}", speaker)
        for who, speaker in (("anon-2008-abc", "anon-2008-abc"), ("bob-2009-xyz", "bob"))
        for i in range(3)
    ]
    for who in "ab":
        lines = "".join(f"{i}.wav\tsaid by {who}, {i}\n" for i in range(3))
        write(tmp_path / "each" / who, {"list.txt": lines, **{f"{i}.wav": None for i in range(3)}})
    assert [(file, text) for file, text, _ in told(tmp_path / "each", tmp_path / "each")] == [
        (f"{who}/{i}.wav", f"said by {who}, {i}") for who in "ab" for i in range(3)
    ]


def test_lists_of_festival_and_sphinx_and_what_is_no_transcript(tmp_path: Path) -> None:
    lines = "".join(f'( arctic_{i} "Author, {i}." )\n' for i in range(3))
    write(tmp_path / "arctic", {"etc/txt.done.data": lines, **{f"wav/arctic_{i}.wav": None for i in range(3)}})
    assert [text for _, text, _ in told(tmp_path / "arctic", tmp_path)] == [f"Author, {i}." for i in range(3)]
    for split in ("train", "test"):
        lines = "".join(f"<s> GO {i} </s> (an{i}-{split}-b)\n" for i in range(4))
        sounds: dict[str, str | None] = {f"an4/wav/an4_clstk/{split}/an{i}-{split}-b.wav": None for i in range(4)}
        write(tmp_path, {f"an4/etc/an4_{split}.transcription": lines, **sounds})
    splits = read_splits(DataSpec(source=str(tmp_path / "an4")))
    assert sorted(row.text for row in splits.test) == [f"GO {i}" for i in range(4)]
    assert all("train" in row.path.name for row in splits.train)
    times = "".join(f"10_{i}\thttp://x/{i}\t1.5\t2.5\n" for i in range(3))  # as of MLS
    lines = "".join(f"10_{i}\tsaid {i}\n" for i in range(3))
    write(tmp_path / "mls", {"segments.txt": times, "transcripts.txt": lines})
    write(tmp_path / "mls", {f"audio/10_{i}.flac": None for i in range(3)})
    assert [text for _, text, _ in told(tmp_path / "mls", tmp_path)] == [f"said {i}" for i in range(3)]
    digits = "".join(f"{i}.wav {i}\n" for i in range(3))
    write(tmp_path / "digits", {"list.txt": digits, **{f"{i}.wav": None for i in range(3)}})
    assert [text for _, text, _ in told(tmp_path / "digits", tmp_path)] == ["0", "1", "2"]
    ids = "".join(f"106_003_{i} said {i}\n" for i in range(3))  # of Zeroth, whose ids have no hyphens
    write(tmp_path / "zeroth", {"106_003.trans.txt": ids, **{f"106_003_{i}.flac": None for i in range(3)}})
    assert {speaker for _, _, speaker in told(tmp_path / "zeroth", tmp_path)} == {"106"}


def test_subtitles_and_json_beside_sounds(tmp_path: Path) -> None:
    cues = "1\n00:00:00,000 --> 00:00:00,200\n<i>Well</i>\nthen\n\n2\n00:00:00,200 --> 00:00:00,350\nyes\n"
    write(tmp_path / "srt", {"0.wav": None, "0.srt": cues, "1.wav": None})
    rows = listing(tmp_path / "srt").rows
    assert [(row.path.name, row.text, row.start) for row in rows] == [
        ("0.wav", "Well then", 0.0),
        ("0.wav", "yes", 0.2),
    ]
    assert [row.seconds for row in rows] == pytest.approx([0.2, 0.15])
    about = json.dumps({"speaker": "ann", "text": "well then", "length": 3})
    write(tmp_path / "json", {"0.wav": None, "0.json": about, "1.wav": None, "1.json": about})
    assert told(tmp_path / "json", tmp_path / "json") == [(f"{i}.wav", "well then", "ann") for i in range(2)]


def test_kaldi_in_data_beside_its_sounds(tmp_path: Path) -> None:
    sounds = {f"wav/r{i}.wav": None for i in range(4)}
    scp = "".join(f"u{i} {tmp_path}/wav/r{i}.wav\n" for i in range(4))
    text = "".join(f"u{i} said {i}\n" for i in range(4))
    write(tmp_path, {**sounds, "data/train/wav.scp": scp, "data/train/text": text})
    splits = read_splits(DataSpec(source=str(tmp_path)))
    rows = [*splits.train, *splits.validation, *splits.test]
    assert {(row.text, row.path) for row in rows} == {(f"said {i}", tmp_path / f"wav/r{i}.wav") for i in range(4)}


def test_silent_sounds_are_left_out_and_named(tmp_path: Path) -> None:
    files = {f"{i}.wav": None for i in range(40)} | {f"{i}.txt": "ab" for i in range(40)}
    write(tmp_path, files)
    soundfile.write(tmp_path / "7.wav", np.zeros(16_000), 16_000)
    rows = {"train": listing(tmp_path).rows}
    alphabet = Alphabet.of(["ab"])
    corpus = load_corpus(survey(rows), default_features(16_000), lambda frames: frames, alphabet)
    assert len(corpus.splits["train"]) == 39
    (note,) = (note for note in corpus.notes if "silent" in note)
    assert re.search(rf"1 of 40 rows .* {re.escape(str(tmp_path / '7.wav'))}", note)


def test_speech_commands(tmp_path: Path) -> None:
    files = {f"{word}/{who}_nohash_0.wav": None for word in ("yes", "no") for who in ("a1", "b2", "c3")}
    lists = {"validation_list.txt": "yes/b2_nohash_0.wav\n", "testing_list.txt": "no/c3_nohash_0.wav\n"}
    write(tmp_path, {**files, **lists, "_background_noise_/hum.wav": None})
    splits = read_splits(DataSpec(source=str(tmp_path)))
    assert sorted((row.text, row.speaker) for row in splits.train) == [
        ("no", "a1"),
        ("no", "b2"),
        ("yes", "a1"),
        ("yes", "c3"),
    ]
    assert [(row.text, row.speaker) for row in (*splits.validation, *splits.test)] == [("yes", "b2"), ("no", "c3")]
    for name in lists:  # as in many copies: the names of the sounds tell that these folders are words
        (tmp_path / name).unlink()
    assert {text for _, text, _ in told(tmp_path, tmp_path)} == {"yes", "no"}
    (tmp_path / "yes" / "a1_nohash_0.wav").rename(tmp_path / "yes" / "recording.wav")
    with pytest.raises(DataError, match="7 sounds, none with a transcript"):
        listing(tmp_path)


def sound_bytes(seed: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, say("ab", seed=seed), 8000, format="WAV")
    return out.getvalue()


def as_parquet(folder: Path) -> Path:
    held = [{"bytes": sound_bytes(i), "path": "audio.wav"} for i in range(12)]
    parquet.write_table(pyarrow.table({"audio": held, "text": [f"say {i}" for i in range(12)]}), folder / "a.parquet")
    return folder / "a.parquet"


def as_plain_bytes(folder: Path) -> Path:
    columns = {"clip": [sound_bytes(i) for i in range(12)], "sentence": [f"say {i}" for i in range(12)]}
    parquet.write_table(pyarrow.table(columns), folder / "b.parquet")
    return folder / "b.parquet"


def as_saved_set(folder: Path) -> Path:
    import datasets

    table = parquet.read_table(as_parquet(folder))
    found = datasets.Dataset(datasets.table.InMemoryTable(table)).cast_column("audio", datasets.Audio())
    found.save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("make", [as_parquet, as_plain_bytes, as_saved_set])
def test_sounds_inside_tables(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    splits = read_splits(DataSpec(source=str(make(tmp_path))))
    rows: list[Row] = [*splits.train, *splits.validation, *splits.test]
    assert sorted(row.text for row in rows) == sorted(f"say {i}" for i in range(12))
    assert min(len(splits.of(name)) for name in ("train", "validation", "test")) > 0  # each row is a sound of its own
    for row in rows:
        expected, _ = soundfile.read(io.BytesIO(sound_bytes(int(row.text[4:]))), dtype="float32")
        assert np.array_equal(read_samples(row.sound, 8000), expected)


def test_a_root_and_a_split_without_transcripts(tmp_path: Path) -> None:
    write(tmp_path / "sounds", {f"deep/{i}.wav": None for i in range(4)})
    rows = [json.dumps({"audio_filepath": f"/cluster/deep/{i}.wav", "text": f"say {i}"}) for i in range(4)]
    write(tmp_path / "lists", {"train.jsonl": "\n".join(rows), "test.csv": "path\ndeep/0.wav\n"})
    data = DataSpec(source=str(tmp_path / "lists"), root=str(tmp_path / "sounds"))
    splits = read_splits(data)
    assert len(splits.test) > 0  # cut from train, since the table of that name says nothing
    assert any(f"{tmp_path}/lists/test.csv: left aside, since it tells no transcripts" in note for note in splits.notes)
    assert {row.path for row in splits.train} < {tmp_path / f"sounds/deep/{i}.wav" for i in range(4)}
    with pytest.raises(
        DataError, match=r"no such file .* or name the folder of the sounds with --set data.root=FOLDER"
    ):
        survey({"train": [Row(tmp_path / "x.wav", "a", "list:1")] * 5})
