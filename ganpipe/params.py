"""params.yaml, typed and checked: the sections that the rooms define, gathered."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from . import gans
from .data import sources
from .data.settings import DataSettings
from .data.sources.base import SourceSettings
from .documents import check_plain, read_settings
from .errors import GanpipeError
from .evaluation.settings import EvaluateSettings
from .gans.base import GanConfig
from .redaction import check_settings
from .registry.settings import RegisterSettings
from .section import Section, nearest, parse
from .training.search_settings import TuneSettings
from .training.settings import ClusterSettings, TrainSettings


class Params(Section):
    """Everything that decides what the pipeline makes."""

    data: DataSettings = Field(default_factory=DataSettings)
    """Which images, in which form."""
    sources: dict[str, Any] = Field(default_factory=dict)
    """Settings of each source; only those of data.source matter to a run."""
    train: TrainSettings = Field(default_factory=TrainSettings)
    """How the generator is trained."""
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    """Where it is trained."""
    tune: TuneSettings = Field(default_factory=TuneSettings)
    """The search for optimiser settings."""
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    """How generators are measured."""
    register_: RegisterSettings = Field(default_factory=RegisterSettings, alias="register")
    """Where they are registered, and which becomes the champion."""
    gans: dict[str, Any] = Field(default_factory=dict)
    """Settings of each GAN; only those of train.gan matter to a run."""

    @cached_property
    def gan_config(self) -> GanConfig:
        """The settings of train.gan. Of all GANs, only this one's code is loaded.

        Raises:
            GanpipeError: there is no such GAN, or a setting does not fit.
        """
        name = self.train.gan
        return parse(gans.load(name).Config, self.gans.get(name, {}), prefix=f"gans.{name}")

    @cached_property
    def source_settings(self) -> SourceSettings:
        """The settings of data.source.

        Raises:
            GanpipeError: there is no such source, or a setting does not fit.
        """
        name = self.data.source
        return parse(sources.load(name).Settings, self.sources.get(name, {}), prefix=f"sources.{name}")


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        GanpipeError: the file is missing or no YAML mapping, or holds unknown keys or values that do not fit.
    """
    values = read_settings(path)
    try:
        check_plain(values)
    except ValueError as error:
        raise GanpipeError(f"{path}: {error}") from None
    check_settings(values)
    params = parse(Params, values, prefix="", origin=str(path))
    _check_names(params)
    _ = params.gan_config, params.source_settings
    return params


def _check_names(params: Params) -> None:
    """Raise GanpipeError where a section is of no GAN or source."""
    for section, found, names in (("gans", params.gans, gans.names()), ("sources", params.sources, sources.names())):
        for name in found:
            if name not in names:
                raise GanpipeError(f"params.yaml: {section}.{name}: unknown key; {nearest(name, names)}")


def every_setting() -> type[Params]:
    """`Params` with the settings of every GAN and source as typed sections; it loads them all."""
    sections: dict[str, dict[str, type[Section]]] = {
        "sources": {name: sources.load(name).Settings for name in sources.names()},
        "gans": {name: gans.load(name).Config for name in gans.names()},
    }
    fields: dict[str, Any] = {}
    for name, models in sections.items():
        description = Params.model_fields[name].description or ""
        model = _one_section_each(name.capitalize(), models, description)
        fields[name] = (model, Field(default_factory=model, description=description))
    return create_model("Params", __base__=Params, __doc__=Params.__doc__, **fields)


def schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    return json.dumps(every_setting().model_json_schema(by_alias=True), indent=2, sort_keys=True) + "\n"


def _one_section_each(title: str, models: dict[str, type[Section]], description: str) -> type[Section]:
    fields: dict[str, Any] = {
        name: (model, Field(default_factory=model, description=(model.__doc__ or "").split("\n")[0]))
        for name, model in models.items()
    }
    return create_model(title, __base__=Section, __doc__=description, **fields)
