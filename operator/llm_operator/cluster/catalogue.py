"""Applies the AcceleratorClasses that the chart ships; what a person has changed stays theirs."""

import logging
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from llm_operator.api import names
from llm_operator.cluster.objects import Objects, RequestFailed

log = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

CATALOGUE_MANAGER: Final = "llm-operator-catalogue"


async def apply_catalogue(objects: Objects, path: Path) -> None:
    """Apply every class of the file, a mapping of name to spec; a class that fails is skipped."""
    for name, spec in read_catalogue(path).items():
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.ACCELERATOR_KIND,
            "metadata": {
                "name": name,
                "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY},
            },
            "spec": spec,
        }
        try:
            await objects.apply(manifest, manager=CATALOGUE_MANAGER, force=False)
        except RequestFailed as failure:
            if not failure.conflict:
                log.warning("AcceleratorClass %s of the catalogue: %s", name, failure)
                continue
            log.info("AcceleratorClass %s was changed by somebody else and is left alone", name)


def read_catalogue(path: Path) -> dict[str, Json]:
    """Return the classes of a catalogue; raises ValueError for a file that is none."""
    try:
        classes = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as problem:
        raise ValueError(f"the catalogue {path} cannot be read: {problem}") from problem
    if not isinstance(classes, dict) or not all(isinstance(v, dict) for v in classes.values()):
        raise ValueError(f"the catalogue {path} must map names to the specs of AcceleratorClasses")
    return {str(name): spec for name, spec in classes.items()}
