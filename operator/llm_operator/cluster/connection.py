"""One authenticated connection to the Kubernetes API, from inside a pod or from a kubeconfig."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME, SERVICE_TOKEN_FILENAME


class NoCluster(Exception):
    """Neither a pod's account nor a usable kubeconfig; the message says which was tried."""


@asynccontextmanager
async def connect(
    kubeconfig: Path | None = None, context: str | None = None
) -> AsyncIterator[ApiClient]:
    """Yield an `ApiClient`, closed on exit; nothing is sent yet.

    A kubeconfig or context that is named wins; then the pod's service account; then the default
    kubeconfig (KUBECONFIG, ~/.kube/config). Reads no global configuration and sets none.
    Raises NoCluster where none of them is there or can be read.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None and context is None and _inside_a_pod():
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(
                config_file=None if kubeconfig is None else str(kubeconfig),
                context=context,
                client_configuration=configuration,
                persist_config=False,  # a refreshed token never goes back to the user's file
            )
    except ConfigException as error:
        raise NoCluster(f"There is no cluster to speak to: {error}") from error
    async with ApiClient(configuration) as client:
        client.user_agent = "llm-operator"
        yield client


def _inside_a_pod() -> bool:
    return SERVICE_HOST_ENV_NAME in os.environ and Path(SERVICE_TOKEN_FILENAME).exists()
