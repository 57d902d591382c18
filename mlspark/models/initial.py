"""Weights that a network begins with: where they are, and how their names become those of the network. Settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlspark.section import Section

PLACES = ("file", "version", "url", "package")
"""Settings that say where the weights are, one of them."""
Parts = Annotated[str, Field(pattern=r"^([^.\s]+(\.[^.\s]+)*)?$")]
"""Whole parts of a name, between dots."""


class InitialWeights(Section):
    """Weights of one place to begin with. What is missing, left over or of another shape there is an error that names it."""

    file: str = ""
    """URI of a safetensors file, or of one that torch.save wrote (.pth, .pt, .th, .bin), whose code is never run."""
    version: str = ""
    """Registered version, as NAME/3 or NAME@alias."""
    url: str = ""
    """Address of such a file, http or https; needs `sha256`. It is downloaded once to a machine, into the user's cache."""
    package: str = ""
    """Weights that a package has in its cache on the driver, as timm/NAME or torchvision/NAME; nothing is downloaded."""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 of the file, in hex digits, which is checked; empty: noted with the run."""
    names: Mapping[Parts, Parts] = {}
    """First parts of the names there -> those of the network: {module: ""} takes off, {"": body} puts in front; the longest
    that fits counts. Wrappers of all names (module, _orig_mod) go by themselves, as does the one place in the network
    where all names fit."""
    without: tuple[Parts, ...] = ()
    """First parts of names there, as they are after `names`, whose weights are left out, like [fc]."""
    head: Literal["keep", "replace", "new"] = "keep"
    """What becomes of the last layer. keep: its weights must fit. replace: they are random where they do not fit, or are not
    there. new: they are random."""
    mean: tuple[float, ...] = ()
    """Mean of each channel of the pictures that the weights were made for, of values / 255; empty: what a version or a
    package says, else that of the training rows. Grey pictures take the mean over the channels."""
    std: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    """Standard deviation of each channel; goes with `mean`."""

    @model_validator(mode="after")
    def _is_of_one_place(self) -> "InitialWeights":
        named = [place for place in PLACES if getattr(self, place)]
        if len(named) != 1:
            raise ValueError(f"give one of {', '.join(PLACES)}, got {', '.join(named) or 'none'}")
        if self.url and not self.sha256:
            raise ValueError("url needs sha256, the file's SHA-256 as it was published")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std {len(self.std)}; give both the same")
        return self

    @property
    def place(self) -> str:
        """Where the weights are, for people."""
        return self.file or self.url or self.package or f"version {self.version}"

    def identity(self) -> dict[str, Any]:
        """Return what decides the weights: not where they are."""
        return self.model_dump(mode="json", exclude=set(PLACES))
