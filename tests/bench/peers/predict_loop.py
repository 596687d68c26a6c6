"""A hand-written batch prediction: one process, one thread, the same model, data and batches."""

import json
import os
import sys
import time
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_model

from tests.bench.inference_work import BATCH_SIZE, Mlp, Rows

weights, hidden, num_layers, out = sys.argv[1:]
torch.set_num_threads(1)
model = Mlp(int(hidden), int(num_layers)).eval()
load_model(model, weights)
dataset = Rows()
started = time.perf_counter()
outputs = []
with torch.inference_mode():
    for inputs, _ in torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE):
        outputs.append(model(inputs).numpy())
numpy.save(out, numpy.concatenate(outputs))
seconds = time.perf_counter() - started
Path(os.environ["BENCH_RESULT"]).write_text(json.dumps({"rows": len(dataset), "seconds": seconds}))
