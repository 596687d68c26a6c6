"""What the targets that a job can be rendered for have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from distrib.deploy.deployment import Deployment
from distrib.deploy.hosts import Hosts
from distrib.deploy.settings import Settings, read_settings
from distrib.deploy.yaml_text import comment


@dataclass(frozen=True)
class Rendered:
    """What a target makes of a job.

    Attributes:
        explanation: What it is and the commands to use it, as lines of a comment above it.
        text: What has to be applied.
        first_line: What must stand above the comment, if anything does.
    """

    explanation: Sequence[str]
    text: str
    first_line: str = ""


@dataclass(frozen=True)
class Renderer(Generic[Settings]):
    """A system that starts hosts and trains a job on them.

    Attributes:
        name: The name under which users choose it.
        settings_kind: The settings that it takes.
        check: Raises JobError if it cannot express the job, or if a setting is missing.
        make_hosts: The hosts for a job, given the workers of each host if the user has chosen them.
        write: Renders a job that passed the check.
    """

    name: str
    settings_kind: type[Settings]
    check: Callable[[Deployment, Settings], None]
    make_hosts: Callable[[Deployment, int | None], Hosts]
    write: Callable[[Deployment, Settings, Hosts], Rendered]

    def render(self, deployment: Deployment, settings: Sequence[str]) -> str:
        """The text to apply, given `NAME=VALUE` settings.

        Raises:
            JobError: The target cannot express the job, or a setting is missing or wrong.
        """
        chosen = read_settings(self.settings_kind, self.name, settings)
        self.check(deployment, chosen)
        rendered = self.write(deployment, chosen, self.make_hosts(deployment, chosen.workers_per_host))
        return rendered.first_line + comment([*rendered.explanation, *deployment.notes]) + rendered.text
