"""The section data: and the names of sources."""

from __future__ import annotations

import pytest

from ganpipe.data import sources
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.base import Source, SourceSettings
from ganpipe.errors import GanpipeError
from ganpipe.section import parse


def test_defaults_are_mnist_at_32_pixels() -> None:
    settings = DataSettings()
    assert (settings.source, settings.image_size, settings.channels) == ("mnist", 32, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "mnits"}, "data.source: got 'mnits'; there is no source of that name; did you mean 'mnist'?"),
        ({"imagesize": 32}, "data.imagesize: unknown key; did you mean 'image_size'?"),
        ({"image_size": "big"}, "data.image_size: got 'big'"),
        ({"channels": 2}, "data.channels: got 2; input should be 1 or 3"),
        ({"background": "blakc"}, "data.background: got 'blakc'; expected a colour"),
        ({"background": "#00000080"}, "not transparent"),
        ({"validation_fraction": 1.0}, "data.validation_fraction: got 1.0"),
        ({"limit": 0}, "data.limit: got 0"),
        ({"unreadable": "ignore"}, "'error' or 'skip'"),
    ],
)
def test_bad_values_are_named(values: dict, message: str) -> None:
    with pytest.raises(GanpipeError) as caught:
        parse(DataSettings, values, "data")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("background", "rgb"), [("white", (255, 255, 255)), ("#102030", (16, 32, 48)), ("#102030ff", (16, 32, 48))]
)
def test_backgrounds(background: str, rgb: tuple[int, int, int]) -> None:
    assert DataSettings(background=background).background_rgb == rgb


def test_every_source_loads_and_documents_its_settings() -> None:
    assert {"folder", "mnist"} <= set(sources.names())
    for name in sources.names():
        source = sources.load(name)
        assert issubclass(source, Source)
        assert issubclass(source.Settings, SourceSettings)
        source.Settings()  # all have defaults: params.yaml need not name a source that it does not use
        undocumented = [key for key, field in source.Settings.model_fields.items() if not field.description]
        assert not undocumented


def test_every_setting_is_documented() -> None:
    assert not [key for key, field in DataSettings.model_fields.items() if not field.description]


def test_an_unknown_source_names_the_nearest() -> None:
    with pytest.raises(GanpipeError, match=r"no source named 'foldr'; did you mean 'folder'\?"):
        sources.load("foldr")
