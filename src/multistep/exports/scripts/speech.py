"""Transcribe a sound by an exported net, by onnxruntime, numpy and soundfile alone: python run.py SOUND"""

import json
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile
from onnxruntime import InferenceSession

folder = Path(__file__).parent
about = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))
samples, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
samples = samples.mean(1)
if rate != about["rate"]:
    import soxr

    samples = soxr.resample(samples, rate, about["rate"]).astype(np.float32)
session = InferenceSession(str(folder / about["model"]))
logits, steps = session.run(None, {"samples": samples[None], "lengths": np.array([len(samples)], np.int64)})
path = [label for label, _ in groupby(logits[0, : steps[0]].argmax(-1).tolist())]
text = "".join(about["symbols"][label] for label in path if label != about["blank"])
print(json.dumps({"text": " ".join(text.split())}, ensure_ascii=False))
