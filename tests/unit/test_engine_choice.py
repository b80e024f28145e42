"""Which engine a pool gets, and the error where there is none."""

import pytest

from pool.config.settings import DaemonSettings
from pool.daemon.engine_choice import Engines, image_of, makers
from pool.engines.base import EngineFacts, ImageFacts
from pool.errors import EngineError, EngineUnavailableError, ImageMissingError


class Fake:
    def __init__(self, name, *, silent="", lacks=""):
        self.name, self._silent, self._lacks = name, silent, lacks
        self.asked, self.closed = 0, False

    def facts(self):
        self.asked += 1
        if self._silent:
            raise EngineUnavailableError(self._silent)
        return EngineFacts(name=self.name, version="1", runtime="runc", cgroups="v2")

    def image(self, name):
        if name == self._lacks:
            raise ImageMissingError(f"there is no image {name}")
        return ImageFacts(id="x", runner="", sources="", size_bytes=1)

    def close(self):
        self.closed = True


def engines(docker, oci):
    return Engines({"docker": lambda: docker, "oci": lambda: oci})


def test_auto_is_docker_where_it_answers_and_the_other_is_not_asked():
    docker, oci = Fake("docker"), Fake("oci")
    chosen = engines(docker, oci)
    assert chosen.choose("auto", "image").facts.name == "docker"
    assert oci.asked == 0


def test_auto_is_oci_where_docker_does_not_answer_and_docker_is_asked_once_for_all_pools():
    docker, oci = Fake("docker", silent="nobody listens"), Fake("oci")
    chosen = engines(docker, oci)
    assert [chosen.choose("auto", "image").facts.name for _ in range(3)] == ["oci"] * 3
    assert (docker.asked, oci.asked, docker.closed) == (1, 1, True)


def test_a_pool_may_name_its_engine_and_another_pool_another_one():
    docker, oci = Fake("docker"), Fake("oci")
    chosen = engines(docker, oci)
    assert [chosen.choose(word, "image").facts.name for word in ("oci", "docker", "oci")] == ["oci", "docker", "oci"]
    chosen.close()
    assert (docker.closed, oci.closed) == (True, True)


def test_an_engine_that_is_named_and_silent_is_not_replaced():
    with pytest.raises(EngineUnavailableError, match=r"^nobody listens$"):
        engines(Fake("docker", silent="nobody listens"), Fake("oci")).choose("docker", "image")


@pytest.mark.parametrize("oci", [{"silent": "runc is not installed"}, {"lacks": "image"}], ids=["no runc", "no image"])
def test_where_neither_can_be_used_both_reasons_are_told(oci):
    with pytest.raises(EngineUnavailableError) as caught:
        engines(Fake("docker", silent="nobody listens"), Fake("oci", **oci)).choose("auto", "image")
    assert caught.value.message.startswith("nobody listens; and the engine oci cannot be used instead: ")
    assert caught.value.message.endswith(oci.get("silent", "there is no image image"))


def test_images_are_below_the_state_directory_unless_they_have_a_directory_of_their_own(tmp_path):
    assert DaemonSettings(state_dir=tmp_path).images == tmp_path / "images"
    assert DaemonSettings(state_dir=tmp_path, image_dir=tmp_path / "x").images == tmp_path / "x"
    engine = makers(DaemonSettings(state_dir=tmp_path))["oci"]()
    assert (engine.name, engine.images.directory) == ("oci", tmp_path / "images")


def test_an_image_without_a_runner_is_refused_when_the_daemon_starts():
    with pytest.raises(
        EngineError, match=r"pools\.default\.image: 'debian' is no worker image: .*pool-admin image build"
    ):
        image_of(Fake("docker"), "default", "debian")
