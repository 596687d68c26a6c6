"""The OpenAPI description of the service's /predict."""

from __future__ import annotations

from typing import Any

from distrib.inference.serving.wire_format import JSON_TYPE, RAW_TYPE, json_schema
from distrib.inference.signature import InputSignature


def describe_request(signature: InputSignature) -> dict[str, Any]:
    """The OpenAPI description of a request's body."""
    content: dict[str, Any] = {JSON_TYPE: {"schema": json_schema(signature)}}
    if not signature.is_named:
        (tensor,) = signature.tensors.values()
        shape = ", ".join(map(str, ("rows", *tensor.row_shape)))
        text = f"Little-endian {tensor.dtype} values of shape [{shape}]; X-Shape and X-Dtype are checked if given."
        content[RAW_TYPE] = {"schema": {"type": "string", "format": "binary", "description": text}}
    return {"requestBody": {"required": True, "content": content}}


RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The outputs, one row per row of the inputs.",
        "content": {
            JSON_TYPE: {"schema": {"type": "object", "required": ["outputs"], "properties": {"outputs": {}}}},
            RAW_TYPE: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    400: {"description": "The body is not JSON."},
    408: {"description": "The body was not received in time."},
    413: {"description": "Too large a body, or too many rows."},
    415: {"description": "The content type is neither JSON nor raw bytes."},
    422: {"description": "The inputs do not match the model's signature, or the model fails on them."},
    429: {"description": "Too many requests are waiting; Retry-After says when to try again."},
}
