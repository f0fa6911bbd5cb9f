"""What eland makes of exported folders, in a Python of its own: `eland_loads.py JOBS OUT`.

JOBS is a JSON list of {"folder", "texts", "command"}. OUT gets, for each, eland's configuration and vocabulary, and of
each text (a pair where it is a list) the ids that its tokenizer makes and what the model that it traced says. Where
there is a command, eland's own program runs with these arguments: it loads the folder, traces it and uploads it.
"""

import json
import sys
import tempfile
from pathlib import Path

import eland
import torch
import transformers
from eland.cli import eland_import_hub_model as program
from eland.ml.pytorch.transformers import TransformerModel

jobs, out = (Path(path) for path in sys.argv[1:])
results = []
for job in json.loads(jobs.read_text()):
    about = json.loads(Path(job["folder"], "elasticsearch.json").read_text())
    model = TransformerModel(model_id=job["folder"], task_type=about["task_type"], es_version=(9, 2, 0))
    with tempfile.TemporaryDirectory() as there:
        traced, config, vocabulary = model.save(there)
        said = {"config": config.to_dict(), "vocabulary": json.loads(Path(vocabulary).read_text()), "rows": []}
        module = torch.jit.load(traced)  # type: ignore[no-untyped-call]
    for given in job["texts"]:
        pair = given if isinstance(given, list) else [given]
        read = model._tokenizer(*pair, truncation=True, return_tensors="pt")
        ids = read["input_ids"]
        types = read.get("token_type_ids", torch.zeros_like(ids))
        with torch.no_grad():
            outputs = module(ids, read["attention_mask"], types, torch.arange(ids.shape[1]))
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs  # of several the server takes the first
        said["rows"].append({"ids": ids[0].tolist(), "types": types[0].tolist(), "outputs": outputs[0].tolist()})
    if job.get("command"):
        sys.argv[1:] = job["command"]
        program.main()
    results.append(said)
versions = {"eland": eland.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
out.write_text(json.dumps({"versions": versions, "models": results}))
