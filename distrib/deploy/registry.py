"""The targets that a job can be rendered for, by name."""

from __future__ import annotations

from typing import Any

from distrib.deploy.compose.renderer import COMPOSE
from distrib.deploy.kuberay.renderer import KUBERAY
from distrib.deploy.renderer import Renderer
from distrib.deploy.slurm.renderer import SLURM
from distrib.errors import JobError
from distrib.job.fields import nearest

RENDERERS: dict[str, Renderer[Any]] = {renderer.name: renderer for renderer in (KUBERAY, SLURM, COMPOSE)}


def find_renderer(name: str) -> Renderer[Any]:
    """The renderer called `name`.

    Raises:
        JobError: There is none.
    """
    if name not in RENDERERS:
        match = nearest(name, RENDERERS)
        hint = f"; did you mean {match}?" if match else ""
        raise JobError(f"no renderer is called {name!r}{hint} (there are: {', '.join(RENDERERS)})", field="--render")
    return RENDERERS[name]
