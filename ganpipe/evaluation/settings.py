"""The section `evaluate:` of params.yaml: what a generator is compared with, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..section import Section

ExtractorName = Literal["efficientnet_lite0", "inception"]


class QuickSettings(Section):
    """The quick FID of the search and of checkpoints: few samples, so a biased number that only ranks."""

    num_samples: int = Field(default=1_000, ge=2)
    """Generated images."""
    num_real: int = Field(default=2_000, ge=2)
    """Real images, at most."""
    seed: int = Field(default=0, ge=0)
    """Seed of the samples and of the choice of real images."""


class EvaluateSettings(Section):
    """How a generator is measured. All of it but the batch size and the figures is part of the protocol."""

    extractor: ExtractorName = "efficientnet_lite0"
    """The network in whose feature space images are compared. `efficientnet_lite0` comes with the project;
    `inception` is the network of published FIDs and needs inception_path."""
    inception_path: str | None = None
    """The TorchScript file inception-2015-12-05.pt (NVIDIA's StyleGAN metrics); its SHA-256 is checked."""
    resize: int | None = Field(default=64, ge=32, le=1024)
    """Side in pixels to which images are resized (bilinear, antialiased) before the extractor sees them. null: the
    extractor's own, which is 224 for efficientnet_lite0 (8 times as slow as 64); inception allows only null, because
    it resizes to 299 itself."""
    num_samples: int = Field(default=10_000, ge=2)
    """Generated images."""
    num_real: int = Field(default=10_000, ge=2)
    """Real images, at most."""
    split: Literal["train", "validation"] = "train"
    """Which real images. FID is published against the training images."""
    batch_size: int = Field(default=64, ge=1)
    """Images that the generator takes at once, and the extractor on a GPU; on a CPU it takes at most 32 per thread."""
    seed: int = Field(default=0, ge=0)
    """Seed of the samples, of the choice of real images and of KID's subsets."""
    kid_subsets: int = Field(default=100, ge=1)
    """KID: number of random subsets over which it is averaged."""
    kid_subset_size: int = Field(default=1_000, ge=2)
    """KID: images in a subset, at most as many as there are."""
    num_neighbours: int = Field(default=3, ge=1)
    """Precision and recall: k. An image is on the manifold if it is nearer to one of the manifold's images than that
    image's k-th nearest neighbour, or equally near."""
    num_grid_samples: int = Field(default=64, ge=1)
    """Samples in the figure samples.png."""
    num_nearest_samples: int = Field(default=8, ge=1)
    """Samples that are shown beside their nearest training images."""
    num_nearest: int = Field(default=5, ge=1)
    """Nearest training images that are shown for each of them."""
    num_interpolations: int = Field(default=6, ge=1)
    """Rows of the interpolation figure, each from one latent to another."""
    num_interpolation_steps: int = Field(default=10, ge=2)
    """Images in such a row, both ends included."""
    quick: QuickSettings = QuickSettings()
    """The quick FID of the search and of checkpoints."""

    @field_validator("num_neighbours")
    @classmethod
    def _fewer_than_images(cls, value: int, info: ValidationInfo) -> int:
        for name in ("num_samples", "num_real"):
            if value >= info.data.get(name, value + 1):
                raise ValueError(
                    f"expected less than {name}, which is {info.data[name]}: each image needs this many neighbours"
                )
        return value

    @model_validator(mode="after")
    def _inception_is_complete(self) -> EvaluateSettings:
        if self.extractor == "inception" and self.inception_path is None:
            raise ValueError("the extractor inception needs inception_path, the file inception-2015-12-05.pt")
        if self.extractor == "inception" and self.resize is not None:
            raise ValueError("the extractor inception resizes to 299 pixels itself; set resize: null")
        return self

    @property
    def min_real(self) -> int:
        """The fewest real images that suffice: two for FID; for precision and recall, an image and its neighbours."""
        return max(2, self.num_neighbours + 1)

    @property
    def quick_fid_name(self) -> str:
        """Name of the quick FID among the metrics."""
        return f"quick_fid_{self.extractor}"
