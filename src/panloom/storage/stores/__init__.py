"""What a device can be beside a volume of ours, one module for each kind of store, all behind ``store.Store``.

    disk.img  /dev/sdb  debian.iso     ``file``      a file, a block device, an optical image
    mem:64M                            ``file``      memory, gone with the process
    rbd:pool/image                     ``rbd``       Ceph, by librbd (``librbd``)
    iscsi://host/iqn…/1                ``remote``    a unit of another target, by our own initiator

``names`` reads such a name and opens what it says.
"""
