"""Predicts many times in one process that can be forked, as each `distrib predict` is: a line of JSON for each case.

A case is {"out", "data", "args", "workers", "batch_size"?, "weights"?, "run"};
the working directory is that of the runs.
"""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch

from distrib.errors import DistribError
from distrib.inference.prediction import predict as module
from distrib.inference.prediction.predict import PredictOptions, describe, predict
from distrib.inference.trained_model import open_trained
from distrib.runs.run import Run

torch.set_num_threads(1)
module.torch_ready_to_fork = lambda: nullcontext(SimpleNamespace(can_fork=True))


def run(case):
    options = PredictOptions(case["workers"], "cpu", case.get("batch_size"), case.get("force", False))
    seen = []
    os.chdir(Path(case["run"]).parent.parent)
    sys.modules.pop("inference_jobs", None)
    try:
        trained = open_trained(Run(case["run"]), case.get("weights", "last"))
        done = predict(trained, case["data"], case.get("args"), Path(case["out"]), options,
                       lambda rows, of: seen.append((rows, of)))  # fmt: skip
    except DistribError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return {**describe(done), "progress": seen}


for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
