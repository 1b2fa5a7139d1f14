"""Whose the space of the disk is.

    allocated    the volume's own file
    unique       what comes back when the volume is deleted: its file, and nameless files that it alone is read through
    shared       snapshots, files of others and the image below it

Counted in blocks of the file system; what files share by reflink counts for each of them.
"""

from panloom.disk_io import status
from panloom.storage.calls import ImageFacts, SnapshotFacts, VolumeFacts, Volumes
from panloom.storage.catalog import LAYER, SNAPSHOT, VOLUME, Catalog, Entry
from panloom.storage.image import Image


def volumes(catalog: Catalog, images: tuple[Image, ...]) -> Volumes:
    """Return what there is, sorted by name."""
    taken = {image.name: status(image.fd).st_blocks * 512 for image in images}
    return Volumes(
        tuple(_volume(entry, catalog, taken) for entry in catalog.of(VOLUME)),
        tuple(
            ImageFacts(image.name, image.octets, image.sha256.hex(), catalog.image_readers(image.name))
            for image in images
        ),
        tuple(_snapshot(entry, catalog) for entry in catalog.of(SNAPSHOT)),
    )


def _volume(entry: Entry, catalog: Catalog, images: dict[str, int]) -> VolumeFacts:
    header, unique, shared = entry.header, entry.allocated_octets, 0
    below = tuple(catalog.below(header))
    alone = True  # so far everything below is read through by this volume only
    for layer in below:
        alone = alone and layer.kind == LAYER and len(catalog.above(layer)) == 1
        if alone:
            unique += layer.allocated_octets
        else:
            shared += layer.allocated_octets
    lowest = below[-1].header if below else header
    if lowest.reads_image:
        shared += images.get(lowest.image_name, 0)
    return VolumeFacts(
        name=entry.volume,
        image=header.image_name or None,
        octets=header.octets,
        allocated_octets=entry.allocated_octets,
        epoch=header.epoch,
        snapshot=header.origin or None,
        thick=header.thick,
        flattening=header.flattening,
        unique_octets=unique,
        shared_octets=shared,
    )


def _snapshot(entry: Entry, catalog: Catalog) -> SnapshotFacts:
    return SnapshotFacts(
        name=entry.label,
        octets=entry.header.octets,
        allocated_octets=entry.allocated_octets,
        taken_at=entry.changed_at,
        clones=catalog.clones(entry),
    )
