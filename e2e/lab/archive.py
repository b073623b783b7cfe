"""Container images written as a docker archive, without a container engine.

The format is that of `docker save`: one tar with the layers, a configuration per image and
`manifest.json`; both `docker load` and `ctr images import` read it.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CREATED = "2025-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its names, its layers (tar files, lowest first), its run configuration."""

    tags: tuple[str, ...]
    layers: tuple[Path, ...]
    config: Mapping[str, object] = field(default_factory=dict)


def _entry(
    name: str, *, kind: bytes = tarfile.REGTYPE, size: int = 0, mode: int = 0o755
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.type, entry.size, entry.mode = kind, size, mode
    return entry


def write_layer(
    path: Path,
    *,
    files: Mapping[str, Path] | None = None,
    links: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
    folders: Mapping[str, int] | None = None,
) -> Path:
    """Writes one layer; equal contents give equal bytes.

    Args:
        path: the tar to write.
        files: path in the image to the file here; modes are kept, owners are root.
        links: path in the image to where the symbolic link points.
        texts: path in the image to a file's text.
        folders: path in the image to the mode of a folder.
    """
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, mode in sorted((folders or {}).items()):
            tar.addfile(_entry(name, kind=tarfile.DIRTYPE, mode=mode))
        for name, target in sorted((links or {}).items()):
            link = _entry(name, kind=tarfile.SYMTYPE, mode=0o777)
            link.linkname = target
            tar.addfile(link)
        for name, source in sorted((files or {}).items()):
            status = source.stat()
            with source.open("rb") as content:
                mode = status.st_mode & 0o7777
                tar.addfile(_entry(name, size=status.st_size, mode=mode), content)
        for name, text in sorted((texts or {}).items()):
            data = text.encode()
            tar.addfile(_entry(name, size=len(data), mode=0o644), io.BytesIO(data))
    return path


def _digest(layer: Path) -> str:
    with layer.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_archive(path: Path, images: Sequence[Image]) -> None:
    """Writes the images to one archive; a layer that several share is in it once."""
    digests = {layer: _digest(layer) for image in images for layer in image.layers}
    blobs: dict[str, bytes | Path] = {f"{d}/layer.tar": layer for layer, d in digests.items()}
    manifest = []
    for image in images:
        chain = [digests[layer] for layer in image.layers]
        config = json.dumps(_config(image, chain), sort_keys=True).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        blobs[name] = config
        layers = [f"{digest}/layer.tar" for digest in chain]
        manifest.append({"Config": name, "RepoTags": list(image.tags), "Layers": layers})
    blobs["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, blob in blobs.items():
            if isinstance(blob, Path):
                with blob.open("rb") as content:
                    tar.addfile(_entry(name, size=blob.stat().st_size, mode=0o644), content)
            else:
                tar.addfile(_entry(name, size=len(blob), mode=0o644), io.BytesIO(blob))


def _config(image: Image, chain: Sequence[str]) -> dict[str, object]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in chain]},
        "history": [{"created": CREATED} for _ in chain],
    }
