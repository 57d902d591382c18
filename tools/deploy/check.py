"""What is wrong with manifests: each fault with file, object, path and the likely meaning."""

from collections.abc import Iterator
from pathlib import Path

from jsonschema import ValidationError

from tools.deploy import confinement, images, pipeline_settings, references
from tools.deploy.manifests import Manifest, load, meant, secrets
from tools.deploy.schemas import CUSTOM, KINDS, validator


def check(folder: Path) -> list[str]:
    """Return one line for each fault of a kustomization; none for a good one."""
    return faults(load(folder), secrets(folder))


def faults(manifests: list[Manifest], secrets: list[Manifest]) -> list[str]:
    """Return one line for each fault of the manifests; none for good ones.

    Args:
        manifests: what would be applied.
        secrets: those that have to be there, with their keys.
    """
    lines = [line for manifest in (*manifests, *secrets) for line in _schema_faults(manifest)]
    if lines:
        return lines  # the rest goes by what the schema says is there
    lines = [*references.faults(manifests, secrets), *confinement.faults(manifests), *images.faults(manifests)]
    return lines or pipeline_settings.faults(manifests)


def _schema_faults(manifest: Manifest) -> Iterator[str]:
    body = manifest.body
    schema = validator(str(body.get("apiVersion")), manifest.kind)
    if schema is None:
        known = [f"{version} {kind}" for version, kind in (*KINDS, *CUSTOM)]
        got = f"{body.get('apiVersion')} {body.get('kind')}"
        yield f"{manifest.place}: apiVersion, kind: unknown {got!r}{meant(got, known)}"
        return
    for error in schema.iter_errors(body):
        yield from (f"{manifest.place}: {line}" for line in _said(error))


def _said(error: ValidationError) -> Iterator[str]:
    path = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties" and error.validator_value is False:
        known = list(error.schema["properties"])
        for key in set(error.instance) - set(known):
            yield f"{path}.{key}".lstrip(".") + f": unknown field{meant(key, known)}"
    else:
        yield f"{path or 'the object'}: {error.message}"
