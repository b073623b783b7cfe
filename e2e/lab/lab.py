"""What the verbs do: the order of the steps from a bare machine to a cluster, and back."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import apt, debian, engine, gobuild, host
from e2e.lab.cache import Cache, Part
from e2e.lab.cluster import Cluster, place_programs
from e2e.lab.config import Config
from e2e.lab.console import Console
from e2e.lab.controlplane import control_plane
from e2e.lab.engine import Engine
from e2e.lab.errors import LabError
from e2e.lab.owned import end_all
from e2e.lab.programs import Programs

PUBLIC_BASE = "python:3.11-slim-bookworm"
HEADROOM_GIB = 10
WRAPPER = "runc-nosysres"


@dataclass(frozen=True, slots=True)
class Lab:
    """One cluster's lab."""

    config: Config
    console: Console

    @property
    def cache(self) -> Cache:
        return Cache(self.config.cache, self.config.state, self.console)

    def programs(self, log: str, env: dict[str, str] | None = None) -> Programs:
        """Runs programs with their output in the named log of this cluster."""
        path = self.config.state / "logs" / f"{log}.log"
        return Programs(owner=self.config.state, log=path, env=env or {})

    def engine(self) -> Engine | None:
        """The Docker in use: ours where it runs, else the machine's, else none."""
        for candidate in (engine.own_engine(self.config.state), Engine()):
            if candidate.answers():
                return candidate
        return None

    def cluster(self, docker: Engine) -> Cluster:
        """The cluster on this Docker, there or not."""
        image, made_from = self._noted("image") or "", self._noted("made-from") or ""
        return Cluster(self.config, docker, image, made_from, self.programs("cluster", docker.env))

    def up(self) -> None:
        """Brings the cluster up; leaves one that is up as it is, even if a new one would differ."""
        docker = self.engine()
        if docker and self.cluster(docker).revive():
            self._compare(self.cluster(docker))
        else:
            self.config.state.mkdir(parents=True, exist_ok=True)
            docker = self._create()
        self.cluster(docker).ensure_devices()
        self.console.say(f"cluster {self.config.cluster} is up: {self.config.kubeconfig}")

    def _compare(self, cluster: Cluster) -> None:
        part = self._node_part(gobuild.go_parts(self.config, gobuild.find_go()))
        known = (part.key if part else "", self.config.release.node_image)
        if cluster.made_from not in known or cluster.differs():
            self.console.say(
                f"  note  cluster {self.config.cluster} was made from {cluster.made_from}; "
                f"`make down up` makes one of Kubernetes {self.config.release.minor} as this "
                "checkout has it"
            )

    def _create(self) -> Engine:
        go = gobuild.find_go()
        self._install(() if self.engine() else apt.ENGINE)
        self._install(("python3-pip",) if gobuild.needs_pip(go) else ())
        parts = gobuild.go_parts(self.config, go)
        tools = {"kind": parts.kind, "kubectl": parts.kubectl, WRAPPER: parts.small}
        place_programs(
            self.config.bin, {name: self.cache.get(part) / name for name, part in tools.items()}
        )
        docker = self._engine()
        self._node_image(docker, parts)
        with self.console.step("cluster", "about half a minute"):
            if docker.address:
                engine.ensure_network(self.config, docker, self.programs("cluster", docker.env))
            elif docker.ask("network", "inspect", engine.NETWORK) is None:
                self._note("network", engine.NETWORK)  # kind makes it
            self.cluster(docker).create()
        return docker

    def _install(self, wanted: tuple[str, ...]) -> None:
        names = apt.missing(wanted) if wanted else ()
        if names:
            with self.console.step("Debian packages", ", ".join(names)):
                apt.install(names, self.programs("apt"))

    def _engine(self) -> Engine:
        docker = self.engine()
        if docker is None:
            needed = engine.lacks_sys_resource(Path("/proc/self/status").read_text())
            wrapper = self.config.bin / WRAPPER if needed else None
            with self.console.step("Docker"):
                docker = engine.start(self.config, wrapper)
        self._note("docker_host", docker.address)
        return docker

    def _node_image(self, docker: Engine, parts: gobuild.GoParts) -> None:
        """Sees to it that the engine has the node image, pulled or built."""
        part = self._node_part(parts)
        pulled = self.config.release.node_image
        if self._noted("made-from") in (part.key if part else "", pulled) and docker.has_image(
            self._noted("image") or "-"
        ):
            return
        if not (part and self.cache.has(part)) and self._pull(docker):
            return
        if part is None:
            raise LabError(
                f"Kubernetes {self.config.release.minor} comes only as {pulled}, and Docker "
                "cannot reach its registry: start 1.34 (KUBE=1.34), which is built here."
            )
        self._prepare(part)
        self._load(docker, part, debian.node_tag(self.config))
        self._note("made-from", part.key)

    def _node_part(self, parts: gobuild.GoParts) -> Part | None:
        release = self.config.release
        if not release.kube:
            return None
        images = control_plane(release, parts, debian.node_tree(self.config))
        return debian.node_image(self.config, parts, images)

    def _pull(self, docker: Engine) -> bool:
        name = self.config.release.node_image
        if docker.ask("manifest", "inspect", name) is None:
            return False
        with self.console.step("node image", f"pulling {name}"):
            self.programs("pull", docker.env).run("docker", "pull", name)
        self._note("image", name)
        self._note("made-from", name)
        return True

    def _load(self, docker: Engine, part: Part, tag: str) -> None:
        archive = self.cache.get(part) / "image.tar"
        with self.console.step(f"{part.name} into Docker"):
            self.programs("load", docker.env).run("docker", "load", "-i", str(archive))
        self._note("image", tag)

    def _prepare(self, part: Part) -> None:
        """Sees to it that an image can be built, where it has to be."""
        if not self.cache.has(part):
            self._install(apt.BUILD)
        free_gib = shutil.disk_usage(self.config.state).free >> 30
        if free_gib < HEADROOM_GIB:
            raise LabError(
                f"{free_gib} GiB are free for {self.config.cache} and {self.config.state}; "
                f"{HEADROOM_GIB} are needed. Old parts lie in {self.config.cache}/parts."
            )

    def down(self) -> None:
        """Removes all that `up` made but the cache, whatever state it was left in."""
        config = self.config
        if not config.state.exists():
            self.console.say(f"cluster {config.cluster} is not there")
            return
        with self.console.step("down"):
            if self._noted("docker_host") == "":
                self._leave_machine_docker()
            end_all(config.state)
            if host.record(config.state).exists():
                programs = self.programs("down")
                host.drop_links(config.cluster, programs)
                host.close_firewall(config.cluster, programs)
                host.drop_cgroups(config.cluster)
                host.restore(host.record(config.state))
            self._forget()

    def _leave_machine_docker(self) -> None:
        docker = Engine()
        if (self.config.bin / "kind").exists():
            self.cluster(docker).delete()
        if network := self._noted("network"):
            docker.ask("network", "rm", network)
        if self._noted("image") == debian.node_tag(self.config):
            docker.ask("image", "rm", debian.node_tag(self.config))

    def _forget(self) -> None:
        # The record goes last: a `down` that was killed half way can be run again.
        for path in self.config.state.iterdir():
            if path != host.record(self.config.state):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(self.config.state)
        if not any(self.config.state.parent.iterdir()):
            self.config.state.parent.rmdir()

    def load(self, images: Sequence[str]) -> None:
        """Copies images from Docker into every node."""
        with self.console.step(f"load {len(images)} image(s)"):
            self.cluster(self._running()).load(*images)

    def build_base(self) -> None:
        """Puts the base of our images into Docker, where no registry offers one."""
        docker = self._running()
        if self.base() == PUBLIC_BASE:
            self.console.say(f"base image: {PUBLIC_BASE}, from the registry")
            return
        part = debian.base_image(self.config)
        self._prepare(part)
        if self._noted("base") != part.key or not docker.has_image(debian.BASE_TAG):
            archive = self.cache.get(part) / "image.tar"
            with self.console.step("base image into Docker"):
                self.programs("load", docker.env).run("docker", "load", "-i", str(archive))
            self._note("base", part.key)
        self.console.say(f"base image: {debian.BASE_TAG}")

    def base(self) -> str:
        """The image to build ours from: ARG BASE."""
        pulled = self._noted("made-from") == self.config.release.node_image
        return PUBLIC_BASE if pulled else debian.BASE_TAG

    def status(self) -> bool:
        """Says what is there; whether the cluster is up."""
        docker = self.engine()
        running = docker is not None and self.cluster(docker).is_up()
        where = docker.address or "the machine's own" if docker else "not running"
        self.console.say(f"Docker   {where}")
        self.console.say(f"cluster  {self.config.cluster}: {'up' if running else 'not up'}")
        self.console.say(f"state    {self.config.state}")
        self.console.say(f"cache    {self.config.cache}")
        return running

    def exports(self) -> dict[str, str]:
        """Variables for a shell or a test that works with this cluster."""
        docker = self._running()
        return {
            **docker.env,
            "KUBECONFIG": str(self.config.kubeconfig),
            "HAMI_LAB_STATE": str(self.config.state),
            "HAMI_LAB_NODES": " ".join(self.config.nodes),
            "BASE": self.base(),
        }

    def _running(self) -> Engine:
        docker = self.engine()
        if docker is None:
            raise LabError(f"cluster {self.config.cluster} is not up: run `make up` first.")
        return docker

    def _noted(self, name: str) -> str | None:
        try:
            return (self.config.state / f"{name}.note").read_text()
        except FileNotFoundError:
            return None

    def _note(self, name: str, value: str) -> None:
        (self.config.state / f"{name}.note").write_text(value)
