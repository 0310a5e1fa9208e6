"""The chart as helm renders it, with the helm that the embedded cluster uses."""

import pytest

from e2e.cluster.go_programs import HELM, built
from e2e.cluster.places import here
from tests.chart.rendering import Helm, Object


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm; built on a machine that has none yet: minutes, once."""
    nobody = tmp_path_factory.mktemp("kube") / "config"
    nobody.write_text("apiVersion: v1\nkind: Config\n")
    return Helm(built(here(), HELM) / "helm", nobody)


@pytest.fixture
def objects(helm: Helm) -> tuple[Object, ...]:
    """The chart with its default values."""
    return helm.render()
