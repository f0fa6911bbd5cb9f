"""Say what an exported net sees on an image, by onnxruntime, numpy and Pillow alone: python run.py IMAGE"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image, ImageOps

folder = Path(__file__).parent
about = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))
image = Image.open(sys.argv[1])
image.draft(None, (2 * max(about["height"], about["width"]),) * 2)
image = ImageOps.exif_transpose(image)
image = image.convert("L" if about["channels"] == 1 else "RGB")  # 8 bits without transparency; see the page for others
if image.size != (about["width"], about["height"]):
    image = image.resize((about["width"], about["height"]), Image.Resampling.BILINEAR)
pixels = np.asarray(image, np.float32).reshape(1, about["height"], about["width"], about["channels"])
session = InferenceSession(str(folder / about["model"]))
logits = session.run(None, {"pixels": pixels.transpose(0, 3, 1, 2)})[0][0].astype(np.float64)
if about["kind"] == "number":
    print(json.dumps({"value": logits[0]}))
else:
    x = logits / about["temperature"]
    several = about["kind"] == "classes"
    shares = 1 / (1 + np.exp(-x)) if several else np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    print(json.dumps(dict(zip(about["labels"], shares.tolist())), ensure_ascii=False))
