"""Database servers in containers, where a Docker engine answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from tests.support.admin import STALE_SECONDS, Admin

_LABEL: Final = "stabilize-test"
_START_SECONDS: Final = 120


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image, and the URL at which its server answers."""

    name: str
    port: int
    environment: dict[str, str]
    url: str


IMAGES: Final = {
    "postgresql": Image(
        name="postgres:17-alpine",
        port=5432,
        environment={"POSTGRES_PASSWORD": "test"},
        url="postgresql+psycopg://postgres:test@{host}:{port}/postgres",
    ),
    "mysql": Image(
        name="mariadb:11.4",
        port=3306,
        environment={"MARIADB_ROOT_PASSWORD": "test"},
        url="mysql+pymysql://root:test@{host}:{port}/mysql",
    ),
}


def docker_answers() -> bool:
    """Whether a Docker engine is here, and not only its client; settled within two seconds."""
    try:
        import docker  # comes with testcontainers

        client = docker.from_env(timeout=1)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:  # the client's errors have no common class, and each of them means no
        return False


def start_container(image: Image) -> tuple[str, str]:
    """Start a server; returns its container and its URL.

    The reaper of testcontainers stays out: it would end a server shared by several test workers
    with the one that happened to start it. Containers of a killed run go when the next one starts.
    """
    from testcontainers.core.config import testcontainers_config  # optional: a test extra
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True
    _remove_stale()
    container = DockerContainer(image.name, env=dict(image.environment), ports=[image.port])
    container.with_kwargs(labels={_LABEL: str(int(time.time()))}).start()
    name = container.get_container_id()
    try:
        host, port = container.get_container_host_ip(), container.get_exposed_port(image.port)
        url = image.url.format(host=host, port=port)
        _wait_until_it_answers(Admin(url))
    except BaseException:
        remove_container(name)
        raise
    return name, url


def remove_container(name: str) -> None:
    """End a container and what it stored."""
    client = _client()
    client.containers.get(name).remove(force=True, v=True)
    client.close()


def _wait_until_it_answers(admin: Admin) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return admin.check()
        except DBAPIError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _remove_stale() -> None:
    client = _client()
    for container in client.containers.list(all=True, filters={"label": _LABEL}):
        if time.time() - int(container.labels[_LABEL]) > STALE_SECONDS:
            container.remove(force=True, v=True)
    client.close()


def _client() -> Any:
    import docker

    return docker.from_env()
