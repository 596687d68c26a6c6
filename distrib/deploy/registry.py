"""The targets that a job can be rendered for, by name."""

from __future__ import annotations

from typing import Protocol

from distrib.deploy.compose.renderer import ComposeRenderer
from distrib.deploy.deployment import Deployment
from distrib.deploy.kuberay.renderer import KubeRayRenderer
from distrib.deploy.settings import TargetSettings
from distrib.deploy.slurm.renderer import SlurmRenderer
from distrib.errors import JobError
from distrib.job.fields import nearest


class Renderer(Protocol):
    """Writes what has to be applied to train a job on a system that starts hosts."""

    @property
    def name(self) -> str:
        """The name under which users choose it."""

    @property
    def settings_kind(self) -> type[TargetSettings]:
        """The settings that it takes."""

    def render(self, deployment: Deployment, settings: list[str]) -> str:
        """The text to apply, given `NAME=VALUE` settings.

        Raises:
            JobError: The target cannot express the job, or a setting is missing or wrong.
        """


RENDERERS: dict[str, Renderer] = {
    renderer.name: renderer for renderer in (KubeRayRenderer(), SlurmRenderer(), ComposeRenderer())
}


def find_renderer(name: str) -> Renderer:
    """The renderer called `name`.

    Raises:
        JobError: There is none.
    """
    if name not in RENDERERS:
        match = nearest(name, RENDERERS)
        hint = f"; did you mean {match}?" if match else ""
        raise JobError(f"no renderer is called {name!r}{hint} (there are: {', '.join(RENDERERS)})", field="--render")
    return RENDERERS[name]
