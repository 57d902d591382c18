"""Strict JSON Schemas of the kinds in deploy/, from the published API models."""

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from kubeflow_spark_api.models import SparkV1beta2SparkApplication
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime, TrainerV1alpha1TrainJob
from kubernetes.client import models

KINDS = {
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("v1", "Secret"): "V1Secret",
    ("v1", "Service"): "V1Service",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
}
CUSTOM = {
    ("sparkoperator.k8s.io/v1beta2", "SparkApplication"): SparkV1beta2SparkApplication,
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"): TrainerV1alpha1TrainJob,
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"): TrainerV1alpha1TrainingRuntime,
}
_SCALARS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
# Quantities are free text in the client's models: these maps hold numbers and texts alike.
_QUANTITIES = {"limits", "requests", "capacity", "hard"}


@cache
def validator(api_version: str, kind: str) -> Draft202012Validator | None:
    """Return the strict validator of a kind, or None when the kind is unknown."""
    if (api_version, kind) in CUSTOM:
        return Draft202012Validator(strict(CUSTOM[api_version, kind].model_json_schema()))
    if (api_version, kind) not in KINDS:
        return None
    definitions: dict[str, Any] = {}
    _define(KINDS[api_version, kind], definitions)
    return Draft202012Validator({"$ref": f"#/$defs/{KINDS[api_version, kind]}", "$defs": definitions})


def strict(schema: Any, name: str = "") -> Any:
    """Return a pydantic schema in which unknown keys and nulls fail and quantities may be numbers."""
    if name.endswith(("Quantity", "IntOrString")):
        return {"type": ["string", "number"]}
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    some = [part for part in schema.get("anyOf", []) if part != {"type": "null"}]
    if len(some) == 1:
        return strict(some[0])
    made = {key: strict(value) for key, value in schema.items() if key not in ("$defs", "properties")}
    for group in ("$defs", "properties"):
        if group in schema:
            made[group] = {key: strict(value, key if group == "$defs" else "") for key, value in schema[group].items()}
    if "properties" in schema:
        made["additionalProperties"] = False
    return made


def _define(name: str, definitions: dict[str, Any]) -> None:
    if name in definitions:
        return
    cls = getattr(models, name)
    definitions[name] = {"type": "object", "additionalProperties": False}
    properties = {
        cls.attribute_map[attribute]: (
            {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
            if cls.attribute_map[attribute] in _QUANTITIES
            else _typed(text, definitions)
        )
        for attribute, text in cls.openapi_types.items()
    }
    required = [cls.attribute_map[attribute] for attribute in cls.openapi_types if _is_required(cls, attribute)]
    definitions[name] |= {"properties": properties, "required": required}


def _is_required(cls: Any, attribute: str) -> bool:
    empty = cls.__new__(cls)
    empty.local_vars_configuration = models.V1Pod().local_vars_configuration
    try:
        setattr(empty, attribute, None)
    except ValueError:  # the client's own check: "must not be `None`"
        return True
    return False


def _typed(text: str, definitions: dict[str, Any]) -> dict[str, Any]:
    if text in _SCALARS:
        return {"type": _SCALARS[text]}
    if text.startswith("list["):
        return {"type": "array", "items": _typed(text[5:-1], definitions)}
    if text.startswith("dict("):
        return {"type": "object", "additionalProperties": _typed(text[5:-1].split(", ", 1)[1], definitions)}
    if not hasattr(models, text):
        return {}  # object (IntOrString), datetime
    _define(text, definitions)
    return {"$ref": f"#/$defs/{text}"}
