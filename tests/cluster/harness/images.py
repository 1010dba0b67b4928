"""Container images without a registry and without Docker: an OCI image is a tar of a few JSON files.

Used by `cluster` and by tests that need an image of their own. An archive holds `oci-layout`, `index.json`
(whose annotation `io.containerd.image.name` is the name under which `ctr images import` files it), and
under `blobs/sha256/` the manifest, the configuration and one layer. Names lie below `kecs.test/`, a host
that does not exist, with a tag other than `latest`, so that Kubernetes pulls them only when missing and a
pull fails at once.

The shell in them is Debian's busybox-static, whose `wget` crashes when it is given a time-out (`-T`).
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.cluster.harness import build, procs

PAUSE = "kecs.test/pause:1"
BUSYBOX = "kecs.test/busybox:1"
SERVER = "kecs.test/server:1"
# In a file list, where the content of a file comes from: bytes, a file or folder here, or a link's target.
Content = bytes | Path | str
PASSWD = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
GROUP = b"root:x:0:\nnogroup:x:65534:\n"


def write(
    path: Path,
    name: str,
    files: Mapping[str, Content],
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    user: str = "",
    folder: str = "/",
) -> Path:
    """Write an image archive at `path` that holds `files` (path within the image to content).

    Folders above a file are made; `/tmp` is always there. Bytes that begin with `#!` and files that may be
    executed here may be executed there.
    """
    layer = _layer(files)
    configuration = {
        "architecture": "amd64" if platform.machine() == "x86_64" else "arm64",
        "os": "linux",
        "config": {
            "Entrypoint": list(entrypoint),
            "Cmd": list(command),
            "Env": [
                f"{key}={value}"
                for key, value in ({"PATH": "/bin:/usr/bin"} | dict(environment or {})).items()
            ],
            "User": user,
            "WorkingDir": folder,
        },
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    blobs: dict[str, bytes] = {}
    config = _blob(blobs, json.dumps(configuration).encode(), "config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [_blob(blobs, layer, "layer.v1.tar")],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [
            _blob(blobs, json.dumps(manifest).encode(), "manifest.v1+json")
            | {"annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}}
        ],
    }
    contents = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()},
    }
    with tarfile.open(path, "w") as archive:
        for member, content in contents.items():
            _add(archive, member, content, 0o644)
    return path


def standard(folder: Path) -> list[Path]:
    """Write the images that every cluster has into `folder`; return their files."""
    busybox = _static_busybox()
    shell: dict[str, Content] = {
        "bin/busybox": busybox,
        **{
            f"bin/{applet}": "busybox"
            for applet in procs.run(busybox, "--list").split()
            if applet != "busybox"
        },
        "etc/passwd": PASSWD,
        "etc/group": GROUP,
    }
    return [
        write(
            folder / "pause.tar",
            PAUSE,
            {"pause": busybox, "sleep": "pause"},
            entrypoint=["/sleep", "infinity"],
        ),
        write(folder / "busybox.tar", BUSYBOX, shell, command=["sh"]),
        write(folder / "server.tar", SERVER, {**shell, "server": build.server()}, entrypoint=["/server"]),
    ]


def program_image(
    path: Path,
    name: str,
    *,
    binaries: Iterable[str],
    files: Mapping[str, Content] | None = None,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    user: str = "",
) -> Path:
    """Write an image of programs of this computer with the libraries that `ldd` names, and a shell.

    Programs (names on PATH or absolute paths) keep their absolute path in the image. `files` adds what
    else they read: path within the image to bytes, or to a file or folder of this computer.
    """
    found = [Path(shutil.which(binary) or binary).absolute() for binary in binaries]
    content: dict[str, Content] = {
        # Debian keeps these inside /usr, and programs and the loader are named both ways.
        **{link: f"usr/{link}" for link in ("bin", "sbin", "lib", "lib64") if Path(f"/{link}").is_symlink()},
        "usr/bin/sh": _static_busybox(),
        "etc/passwd": PASSWD,
        "etc/group": GROUP,
    }
    for file in {*found, *(library for binary in found for library in _libraries(binary))}:
        content[_place(file)] = file.resolve()
    return write(
        path,
        name,
        content | dict(files or {}),
        entrypoint=entrypoint,
        command=command,
        environment=environment,
        user=user,
    )


def _static_busybox() -> Path:
    return Path(shutil.which("busybox") or "busybox").resolve()


def _libraries(binary: Path) -> list[Path]:
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


def _place(file: Path) -> str:
    """Return where a file lies once the links of its folders are followed; its own name stays."""
    return str(file.parent.resolve() / file.name).lstrip("/")


def _layer(files: Mapping[str, Content]) -> bytes:
    """Return the tar of a layer: the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        made = {""}
        _folders(archive, "tmp/x", made)
        for name, content in sorted(files.items()):
            _put(archive, name.strip("/"), content, made)
    return buffer.getvalue()


def _put(archive: tarfile.TarFile, name: str, content: Content, made: set[str]) -> None:
    _folders(archive, name, made)
    if isinstance(content, bytes):
        _add(archive, name, content, 0o755 if content.startswith(b"#!") else 0o644)
    elif isinstance(content, str):
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, content
        archive.addfile(link)
    elif content.is_dir():
        for each in sorted(content.iterdir()):
            _put(archive, f"{name}/{each.name}", each, made)
    else:
        _add(archive, name, content.read_bytes(), 0o755 if content.stat().st_mode & 0o111 else 0o644)


def _folders(archive: tarfile.TarFile, name: str, made: set[str]) -> None:
    """Make the folders above `name`; a layer without them leaves their mode to chance."""
    parts = name.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        if folder not in made:
            made.add(folder)
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _blob(blobs: dict[str, bytes], content: bytes, kind: str) -> dict[str, object]:
    digest = _digest(content)
    blobs[digest] = content
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
