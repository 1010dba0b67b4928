"""The scripted `k3d image import`, which says that it went well and ends with 0 when a node refused the image."""

import time

import daemon
from k3d_cluster import find
from world import DockerError, Fatal

REFUSED = (
    'ctr: failed to dial "/run/containerd/containerd.sock": context deadline exceeded: connection error: desc ='
    ' "transport: error while dialing: dial unix:///run/containerd/containerd.sock: timeout"\r\n'
)


def import_images(world, names, flags):
    cluster = flags.one("-c", flags.one("--cluster", "k3s-default"))
    mode = flags.one("--mode", flags.one("-m", "tools-node"))
    try:
        nodes = find(world, cluster)
    except Fatal as error:
        raise Fatal(f"failed to get cluster {cluster}: {error}") from None
    world.info(f"Importing image(s) into cluster '{cluster}'")
    known = world.config.get("images", {})
    good = [name for name in names if name in known]
    for name in names:
        if name not in known:
            world.log(
                "warning", f"Image '{name}' is not a file and couldn't be found in the container runtime"
            )
    if not good:
        world.log("error", f"Failed to import image(s) into cluster '{cluster}': no valid images specified")
        world.log(
            "warning",
            "At least one error occured while trying to import the image(s) into the selected cluster(s)",
        )
        raise SystemExit(1)
    tools = f"k3d-{cluster}-tools"
    if mode == "direct":
        world.info(f"Loading {len(good)} image(s) from runtime into nodes...")
    else:
        world.info("Starting new tools node...")
        world.info(f"Starting node '{tools}'")
        try:
            daemon.create(
                world, name=tools, role="noRole", cluster=cluster, network=nodes[0]["network"], image="tools"
            )
            daemon.start(world, tools)
        except DockerError as error:
            raise Fatal(f"failed to ensure tools node: {error}") from None
        world.info(f"Saving {len(good)} image(s) from runtime...")
        world.sleep(1.0)
        world.info("Importing images into nodes...")
    for node in nodes:
        if node["role"] not in ("server", "agent"):
            continue
        if mode == "direct":
            world.info(f"Importing images '[{' '.join(good)}]' into node '{node['name']}'...")
        else:
            tar = f"/k3d/images/k3d-{cluster}-images-20261123142923.tar"
            world.info(f"Importing images from tarball '{tar}' into node '{node['name']}'...")
        world.step("import:importing")
        if mode in world.fault("import_hangs", []):
            time.sleep(3600)
        world.sleep(1.0)
        if mode in world.fault("import_refused", []):
            world.log(
                "error",
                f"failed to import images in node '{node['name']}': Exec process in node '{node['name']}' failed with"
                f" exit code '1': Logs from failed access process:\n{REFUSED}",
            )
            continue
        if mode in world.fault("import_lost", []):
            continue
        with world.transaction() as state:
            for name in good:
                keep(state["containers"][node["id"]], name, known[name])
    if mode != "direct":
        world.info("Removing the tarball(s) from image volume...")
        world.info("Removing k3d-tools node...")
        daemon.remove(world, tools, force=True)
    world.info("Successfully imported image(s)")
    world.info(f"Successfully imported {len(names)} image(s) into 1 cluster(s)")


def keep(container, name, identity):
    """Store an image as containerd and its CRI do: under its name, and under the digest of its configuration.

    An image of a name that containerd had already gets no name of its configuration (seen in containerd 1.6).
    """
    digest = f"sha256:{identity.partition(':')[2][::-1]}"
    images = container["images"]
    if long_name(name) not in images:
        images[identity] = digest
    images[long_name(name)] = digest
    container.setdefault("manifests", {})[digest] = {"schemaVersion": 2, "config": {"digest": identity}}


def long_name(name):
    """The name of an image in containerd: `myapp:dev` is `docker.io/library/myapp:dev`."""
    head = name.split("/")[0]
    if "/" not in name:
        name = f"docker.io/library/{name}"
    elif "." not in head and ":" not in head and head != "localhost":
        name = f"docker.io/{name}"
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
