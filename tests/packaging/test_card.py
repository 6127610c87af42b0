"""The model card: what it says of real data and settings, and that it is the same text each time."""

from __future__ import annotations

from typing import Any

from registry_parts import make_gan

from ganpipe.gans.base import DataSpec
from ganpipe.packaging.card import card, card_summary, paper_of

PROTOCOL: dict[str, Any] = {
    "hash": "d1d6d9a846dc7941",
    "num_samples": 10000,
    "seed": 0,
    "truncation": 1.0,
    "reference": {
        "extractor": "efficientnet_lite0",
        "weights_sha256": "579344248a93e230",
        "resize": 64,
        "num_real": 5000,
        "split": "train",
        "data_digest": "96c930793b016ed5",
    },
}


METRICS = {"recall_x": 0.5, "fid_x": 44.1087, "fid_of_real_x": 8.1234}


def text(gan: str = "cgan", description: str = "MNIST, handwritten digits.", **changes: Any) -> str:
    config = make_gan(gan).config.model_dump(mode="json")
    trained = {
        "gan": gan,
        "config": config,
        "averaged": True,
        "data": DataSpec.images(32, 1, 10).to_json(),
        "progress": {"images_seen": 120000, "num_images": 120000, "step": 1875},
        "run_key": "69b4ff7f86062ef2",
    }
    data = {
        "source": "mnist",
        "description": description,
        "homepage": "https://yann.lecun.com/exdb/mnist/",
        "licence": "CC BY-SA 3.0",
        "digest": "96c930793b016ed5",
        "classes": [str(number) for number in range(10)],
        "num_train": 54000,
        "num_validation": 6000,
    }
    training = {"batch_size": 64, "max_gradient_norm": None, "precision": "auto"}
    return card({**trained, **changes}, data, training, METRICS, PROTOCOL, {"fid_x": [43.2, 45.0]})


def test_it_says_what_the_issue_asks_for() -> None:
    told = text()
    for part in (
        "# cgan on mnist\n",
        "| licence | CC BY-SA 3.0 |",
        "| images | 54,000 to train on, 6,000 held out |",
        "| classes | 10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 |",
        "CGAN: conditional generative adversarial nets (Mirza & Osindero 2014, arXiv 1411.1784)",
        "120,000 images were seen in 1,875 steps. Samples come from a moving average (EMA)",
        "| gans.cgan.adam_generator.lr | 0.0005 |",
        "| train.batch_size | 64 |",
        "| train.max_gradient_norm | none |",
        "| fid_x | 44.1087 | 43.2 to 45 | lower | Fréchet distance between features of generated and of real images |",
        "| recall_x | 0.5 |  | higher | Share of real images that lie among generated ones: diversity |",
        "fid_of_real_x 8.1234, fid_x 44.1087 (floor 8.12), recall_x 0.5.",
        "Protocol `d1d6d9a846dc7941`: features of efficientnet_lite0",
        "10,000 samples against 5,000 images of the train split",
        "](samples.png)",
        "| label | the class, 0 to 9;",
        "`nearest.png`",
        "at 32 x 32 pixels; what the data leaves out",
        "not evidence of anything",
        "`69b4ff7f86062ef2`",
    ):
        assert part in told, part


def test_the_same_data_is_the_same_text() -> None:
    assert text() == text()
    assert text(averaged=False) != text()


def test_a_description_of_ones_own_breaks_no_table() -> None:
    told = text(description="Mine |\n\n# not a heading")
    assert "| what | Mine \\| # not a heading |" in told
    assert "\n# not" not in told
    assert card_summary(told).endswith("recall_x 0.5.")


def test_what_a_gan_without_labels_cannot() -> None:
    told = text("dcgan")
    assert "| label |" not in told
    assert "The class of an image cannot be chosen." in told


def test_in_short_it_is_one_paragraph_with_licence_and_numbers() -> None:
    short = card_summary(text())
    assert "\n" not in short
    assert short.startswith("A generator of 32 x 32 grey images. GAN: CGAN: ")
    assert "Licence of the data: CC BY-SA 3.0" in short
    assert short.endswith(
        "Measured under protocol d1d6d9a846dc7941: fid_of_real_x 8.1234, fid_x 44.1087 (floor 8.12), recall_x 0.5."
    )


def test_every_gan_names_its_paper() -> None:
    from ganpipe import gans

    named = ("arXiv", "doi", "no paper is known")
    assert [name for name in gans.names() if not any(mark in paper_of(name) for mark in named)] == []
