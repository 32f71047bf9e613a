"""Ray for the time of a run: a cluster that is there, or one of our own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import AuthenticationError

from cluster.config import ClusterConfig, ConfigError

OBJECT_STORE_BYTES = 512 * 2**20


@contextmanager
def session(config: ClusterConfig) -> Iterator[None]:
    """Connect to `config.address`, to the cluster that a job runs on, or start a local one. Raises ConfigError."""
    if config.spawn == "local":
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = config.address or os.environ.get("RAY_ADDRESS", "")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        else:
            ray.init(
                log_to_driver=False,
                logging_level=logging.WARNING,
                include_dashboard=config.dashboard,
                object_store_memory=OBJECT_STORE_BYTES,
            )
    except (ConnectionError, AuthenticationError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address or 'this machine'}: {str(error).splitlines()[0]}; start one with "
            "`ray start --head`, give its address by cluster.address=HOST:PORT and its token by RAY_AUTH_TOKEN, "
            "or leave both out to start one here"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
