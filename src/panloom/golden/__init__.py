"""Golden disks made from nothing: a recipe becomes a Debian that boots from our iSCSI.

recipe ──▶ debootstrap, apt, initramfs, GRUB (in namespaces: ``debian``) ──▶ a tree ──▶ a disk (``disk``)
"""
