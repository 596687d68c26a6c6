"""A hand-written endpoint: FastAPI around the same model, one request after the other in the event loop."""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from safetensors.torch import load_model

from tests.bench.inference_work import Mlp

weights, hidden, num_layers, port = sys.argv[1:]
model = Mlp(int(hidden), int(num_layers)).eval()
load_model(model, weights)
app = FastAPI()


class Inputs(BaseModel):
    """The body of a request."""

    inputs: list[list[float]]


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether it is up."""
    return {"status": "ok"}


@app.post("/predict")
async def predict(body: Inputs) -> dict[str, list[list[float]]]:
    """The outputs of each row."""
    with torch.inference_mode():
        return {"outputs": model(torch.tensor(body.inputs)).tolist()}


uvicorn.run(app, port=int(port), log_level="warning")
